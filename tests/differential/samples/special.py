"""Samples of the special functions."""

from __future__ import annotations

import numpy as np

from tests.differential.samples.base import Op, Sample, bad, f, forward, ints, mask, once, pos, s, special
from tests.differential.samples.pointwise import again, v

NAN, INF = np.nan, np.inf
_WHOLE = v(-3.0, -2.0, -1.0, -0.0, 0.0, 1.0, 2.0, 3.0, 10.0, 100.0)
_WIDE = v(-20.0, -5.0, -1.5, -1e-10, 1e-10, 0.3, 1.4, 5.5, 7.9, 8.1, 25.0, 600.0)
_REFUSED = (bad("must be Tensor", 3.0),)


def _unary(name: str, *more: Sample, grads: int = 2, **options: object) -> Op:
    samples = (s(f(3, 4)), s(special()), s(_WIDE), s(ints(3)), s(mask(2)), s(f()), s(f(0)), *more)
    return Op(name, samples, _REFUSED, grads, **options)  # type: ignore[arg-type]


def _finite(name: str, **options: object) -> Op:
    """Without infinities: PyTorch's series give NaN there."""
    # Second gradients of large arguments overflow.
    samples = (s(f(3, 4)), once(s(_WIDE)), s(ints(3)), s(mask(2)), s(f()), s(f(0)))
    return Op(name, samples, _REFUSED, **options)  # type: ignore[arg-type]


_UNIT = v(0.0, -0.0, 1.0, -1.0, 1.5, 0.5, -0.9, 0.999, 1e-20, NAN)
_PROBABILITIES = v(0.0, 1.0, 1.5, -0.1, 0.5, 0.9, 0.999, 1e-300, 1e-20, NAN)
_ERFC, _ERFINV = _unary("erfc"), Op("erfinv", (s(f(3, 4, low=-0.9, high=0.9)), s(_UNIT), s(mask(2))), _REFUSED)
_LGAMMA = Op(
    "lgamma",
    # At poles the second gradients are large numbers or infinite.
    (s(pos(3, 4, high=12.0)), s(f(4)), once(s(special())), once(s(_WHOLE)), s(ints(3, low=1))),
    _REFUSED,
)
_DIGAMMA = Op(
    "digamma",
    # At poles the gradients are large numbers or infinite.
    (s(pos(3, 4, high=12.0)), s(f(4)), forward(s(special())), forward(s(_WHOLE)), s(ints(3, low=1))),
    _REFUSED,
)
# PyTorch's `ndtr` ends with a product by a number of its own kind.
_I0, _NDTR = _finite("i0"), _unary("special.ndtr", grad_fn=False)
_POLYGAMMA = Op(
    "polygamma",
    (s(0, pos(3)), s(1, pos(3, high=12.0)), s(1, f(3)), s(2, pos(3)), s(3, pos(3)), s(2, f(2)), s(1, ints(2, low=1))),
    (bad("negative", -1, pos(2)), bad("polygamma", 1.5, pos(2))),
)
_MVLGAMMA = Op(
    "mvlgamma",
    (s(pos(3, 4) + 2, 3), s(pos(3), 1), s(ints(3, low=3), 2)),
    (bad("p has", pos(2), 0), bad("int", pos(2), 1.5)),
)
_POLYNOMIALS = tuple(
    Op(
        f"special.{name}",
        (
            *(s(f(3, 4, low=-0.9, high=0.9), n) for n in (-1, 0, 1, 2.7, 5, 12)),
            *(s(v(-2.0, -1.0, 0.0, 1.0, 1.5), ints(2, 1, low=0, high=5)), s(ints(3), 2), s(1.5, v(0.0, 2.0, 3.0))),
            *(s(mask(2), 3), s(f(0), 2), s(v(0.5), NAN)),
        ),
        (
            bad("not implemented for 'Half'", np.array([0.5], np.float16), 2),
            bad("invalid combination", 2.0, 2),
            bad("invalid combination", f(2), "a"),
        ),
    )
    for name in (
        *(f"{moved}chebyshev_polynomial_{kind}" for moved in ("", "shifted_") for kind in "tuvw"),
        *("hermite_polynomial_h", "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p"),
    )
)
_AIRY = Op(
    "special.airy_ai",
    (s(f(3, 4)), s(v(-20.0, -9.5, -5.0, -1.0, 0.0, 1.0, 5.0, 12.0, 110.0)), s(ints(3)), s(f()), s(f(0))),
    (bad("must be Tensor", 2.0),),
    rtol=1e-4,  # PyTorch's own error around -2
    slack=8.0,
    beyond=True,
)
_AX = v(0.5, 1.0, 3.0, 20.0, 0.0, INF, 1.0, -1.0, 1.0, NAN), v(1.0, 1.0, 8.0, 10.0, 1.0, 1.0, INF, 1.0, 0.0, 1.0)
_IGAMMA = Op("igamma", (s(pos(3, 4), pos(4)), s(*_AX), s(pos(3), ints(3, low=1))))
_IGAMMAC = Op("igammac", _IGAMMA.samples)
_BESSEL = (
    "bessel_j0",
    "bessel_j1",
    "bessel_y0",
    "bessel_y1",
    "modified_bessel_i0",
    "modified_bessel_i1",
    "modified_bessel_k0",
    "modified_bessel_k1",
    "scaled_modified_bessel_k0",
    "scaled_modified_bessel_k1",
)

SPECIAL: tuple[Op, ...] = (
    _ERFC,
    _ERFINV,
    _LGAMMA,
    _DIGAMMA,
    _I0,
    _POLYGAMMA,
    _MVLGAMMA,
    _IGAMMA,
    _IGAMMAC,
    _NDTR,
    _unary("special.i0e"),
    _finite("special.i1"),
    _finite("special.i1e"),
    _unary("special.erfcx", beyond=True),
    _finite("special.log_ndtr", beyond=True),
    Op(
        "special.ndtri",
        (s(pos(3, 4, high=0.95)), s(_PROBABILITIES), s(mask(2))),
        _REFUSED,
        rtol=1e-8,
        beyond=True,
    ),
    Op("special.entr", (s(pos(3, 4)), s(special())), _REFUSED),
    Op("special.spherical_bessel_j0", (s(f(3, 4)), s(_WIDE), s(special())), beyond=True),
    _AIRY,
    *_POLYNOMIALS,
    *(
        Op(
            f"special.{name}",
            (s(f(3, 4)), s(_WIDE), s(pos(9, low=1.0, high=40.0)), s(v(0.0, -0.0, NAN))),
            slack=16.0,
            rtol=1e-4,
            beyond=True,
        )
        for name in _BESSEL
    ),
    Op(
        "special.zeta",
        (
            s(pos(3, 4) + 1.5, pos(4)),
            s(v(1.0, 0.5, 2.0, 3.0, 2.5, NAN), v(1.0, 1.0, -1.0, -1.5, -1.5, 1.0)),
            s(2.5, pos(3)),
            s(pos(2) + 2, 1.0),
        ),
        beyond=True,
    ),
    Op(
        "special.xlog1py",
        (s(f(3, 4), pos(4)), s(f(3), 2.0), s(0.5, pos(3)), s(v(0.0, 0.0, 1.0), v(-1.0, NAN, -1.0))),
    ),
    *(
        again(f"special.{name}", op)
        for name, op in (
            ("erfc", _ERFC),
            ("erfinv", _ERFINV),
            ("gammaln", _LGAMMA),
            ("digamma", _DIGAMMA),
            ("psi", _DIGAMMA),
            ("i0", _I0),
            ("polygamma", _POLYGAMMA),
            ("multigammaln", _MVLGAMMA),
            ("gammainc", _IGAMMA),
            ("gammaincc", _IGAMMAC),
        )
    ),
    *(
        Op(f"special.{name}", (s(pos(3, 4, high=0.9)), s(mask(2))))
        for name in ("erf", "exp2", "expit", "expm1", "log1p", "logit", "sinc")
    ),
    # PyTorch rounds to 0 digits here.
    Op("special.round", (s(f(3, 4)), s(f(3), decimals=1)), grad_fn=False),
    Op("special.xlogy", (s(f(3, 4), pos(4)),)),
    *(Op(f"special.{name}", (s(f(3, 4), 1), s(f(3, 4), dim=-2))) for name in ("softmax", "log_softmax", "logsumexp")),
)
