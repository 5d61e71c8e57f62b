"""Three ranks, one of which calls other collectives: `python disagreement.py KIND RANK`."""

import sys

import rushlight_distributed as dist
import rushlight_tensor as T

KIND, ODD = sys.argv[1], int(sys.argv[2])

dist.init_process_group("mpi")
x = T.zeros(4)
dist.all_reduce(x)
if dist.get_rank() != ODD:
    dist.all_reduce(x)  # where the others are
    dist.barrier()
elif KIND == "operation":
    dist.broadcast(x, 0)  # where the odd one is
elif KIND == "shape":
    dist.all_reduce(T.zeros(5))  # where the odd one is
elif KIND == "dtype":
    dist.all_reduce(x.int())  # where the odd one is
elif KIND == "reduction":
    dist.all_reduce(x, op=dist.ReduceOp.MAX)  # where the odd one is
elif KIND == "order":
    dist.barrier()  # where the odd one is
    dist.all_reduce(x)
elif KIND == "extra":
    dist.all_reduce(x)
    dist.all_reduce(x)  # where the odd one is
    dist.barrier()
elif KIND == "skip":
    pass
elif KIND == "group":
    dist.recv(x, src=(ODD + 1) % 3)  # where the odd one is
