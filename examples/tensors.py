"""Tensors: from lists and NumPy and back, arithmetic, gradients, devices.  Runs as it is with `import torch`."""

import numpy as np

import rushlight as torch

# Gradients of w * x + b, through methods.
x = torch.tensor([1.0, 2.0, 3.0])
w = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
b = torch.tensor(0.1, requires_grad=True)
y = w.mul(x).add(b)
print(y)
y.sum().backward()
print(w.grad, b.grad)

# From lists, and from NumPy with shared memory.
print(torch.tensor([[1, 2], [3, 4]]))
array = np.zeros(3, dtype=np.float32)
shared = torch.from_numpy(array)
array[1] = 7
print(shared)
shared[0] = -1
print(array, shared.numpy() is not array, np.shares_memory(shared.numpy(), array))

# Arithmetic with numbers, shapes, views.
print(x * 2 + 1)
m = torch.arange(6).reshape(2, 3)
print(m.T, m[:, 1:], m.float().mean(dim=0), (m > 2).sum())
m[0] = 10
print(m, m.shape, m.dtype)

# Devices.
if torch.cuda.is_available():
    print((x.to("cuda") * 2).cpu())
else:
    try:
        x.to("cuda")
    except (RuntimeError, AssertionError) as error:
        print("no GPU:", str(error).split(":")[0])
