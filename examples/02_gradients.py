"""Gradients two ways: `backward()` as in PyTorch, and functions of functions; then a second derivative."""

import graphc as torch

# As in PyTorch: gradients collect in `.grad` of the leaves.
x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
y = (x**2 * 3).sum()
y.backward()
print("6x:", x.grad)


def f(x):
    return (x**3).sum()


# As functions: the gradient of a function is a function, so it has a gradient too.
point = torch.tensor([1.0, 2.0, 3.0])
print("3x²:", torch.grad(f)(point))
print("6x:", torch.grad(lambda x: torch.grad(f)(x).sum())(point))

value, gradient = torch.value_and_grad(f)(point)
print("value and gradient:", value.item(), gradient)

output, pull = torch.vjp(lambda x: x * x, point)
(gradient,) = pull(torch.ones(3))
print("vjp:", gradient)
