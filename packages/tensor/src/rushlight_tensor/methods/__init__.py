"""What is bound to the Tensor class: properties, gradients, copies, printing, and every op as a method."""
