"""Operations with a gradient of their own: rounding, whose gradient passes straight through, and a safe norm."""

import graphc as torch
from graphc.autograd import Function, gradcheck


class RoundStraightThrough(Function):
    """Rounds; backward acts as if it did not."""

    @staticmethod
    def forward(ctx, x):
        return torch.round(x)

    @staticmethod
    def backward(ctx, grad):
        return grad


class SafeNorm(Function):
    """The Euclidean norm, with gradient 0 instead of NaN at 0."""

    @staticmethod
    def forward(ctx, x):
        norm = (x * x).sum().sqrt()
        ctx.save_for_backward(x, norm)
        return norm

    @staticmethod
    def backward(ctx, grad):
        x, norm = ctx.saved_tensors
        return torch.where(norm > 0, grad * x / norm, torch.zeros_like(x))


weight = torch.tensor([0.4, 1.7, -2.2], requires_grad=True)
rounded = RoundStraightThrough.apply(weight)
rounded.register_hook(lambda grad: print("gradient at the rounded values:", grad))
loss = (rounded * rounded).sum()
loss.backward()
print("rounded:", rounded.tolist())
print("gradient of the weights:", weight.grad)

zero = torch.zeros(2, requires_grad=True)
SafeNorm.apply(zero).backward()
print("gradient of the norm at zero:", zero.grad)

point = torch.tensor([3.0, 4.0], dtype=torch.float64, requires_grad=True)
print("gradcheck:", gradcheck(SafeNorm.apply, point))
(slope,) = torch.autograd.grad(SafeNorm.apply(point), point, create_graph=True)
(curve,) = torch.autograd.grad(slope[0], point)
print("second derivative:", curve.tolist())
