"""The nearest trajectory in an intersection of convex sets, by the alternating direction method of multipliers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RELAX = 1.6  # Boyd et al. 2011, section 3.4.3: over-relaxation of 1.5 to 1.8
CHECK = 10  # iterations between two looks at which trajectories are done


@dataclass
class Term:
    """The differences K x of order `order` of the entries `dims` must be in a set, given by its projection.

    `region` (R, ..) and `slack` (R, 1, 1) are what the projection needs to know of each trajectory.
    """

    dims: list[int]
    order: int
    nearest: Callable[[Tensor, Tensor, Tensor], Tensor]
    region: Tensor
    slack: Tensor
    rho: float

    def start(self, x_RHD: Tensor) -> None:
        """z is the copy of K x that is in the set, u the scaled multiplier of K x = z."""
        self.K = torch.eye(x_RHD.shape[1], dtype=x_RHD.dtype, device=x_RHD.device).diff(n=self.order, dim=0)
        self.z = self.nearest(self.K @ x_RHD[..., self.dims], self.region, self.slack)
        self.u = torch.zeros_like(self.z)

    def pull(self) -> Tensor:
        """rho K^T (z - u)."""
        return self.rho * (self.K.T @ (self.z - self.u))

    def move(self, x_RHD: Tensor) -> Tensor:
        """Boyd et al. 2011, equations 3.6 and 3.7, over-relaxed. Returns the residual K x - z."""
        Kx = self.K @ x_RHD[..., self.dims]
        aim = RELAX * Kx + (1 - RELAX) * self.z + self.u
        self.z = self.nearest(aim, self.region, self.slack)
        self.u = aim - self.z
        return Kx - self.z

    def keep(self, rows: Tensor) -> None:
        self.region, self.slack, self.z, self.u = (t[rows] for t in (self.region, self.slack, self.z, self.u))


def nearest_in_all(y_RHD: Tensor, known_RHD: Tensor, terms: Sequence[Term], tolerance_R: Tensor,
                   iterations: int) -> Tensor:
    """The trajectory in all sets that is nearest to y, with the known entries as they are in y; all float64.

    min |x - y|^2 / 2 subject to K_i x = z_i, z_i in S_i, with K_i the differences of term i (Boyd et al. 2011,
    equations 3.5 to 3.7). A trajectory is done when no |K_i x - z_i| and no change of x exceeds its tolerance, or after
    `iterations`.
    """
    for term in terms:
        term.start(y_RHD)
    inverse, shift = _systems(y_RHD, known_RHD, terms)
    x, result, rows = y_RHD, y_RHD.clone(), torch.arange(len(y_RHD), device=y_RHD.device)
    for step in range(1, iterations + 1):
        pull = y_RHD - shift
        for term in terms:
            pull[..., term.dims] += term.pull()
        before, x = x, torch.where(known_RHD, y_RHD, (inverse @ pull.mT[..., None])[..., 0].mT)
        residuals = [x - before, *(term.move(x) for term in terms)]
        if step % CHECK and step < iterations:
            continue
        done = torch.stack([r.abs().flatten(1).amax(1) for r in residuals]).amax(0) <= tolerance_R
        if step == iterations:
            done[:] = True
        result[rows[done]] = x[done]
        rows, x, y_RHD, known_RHD, inverse, shift, tolerance_R = (
            t[~done] for t in (rows, x, y_RHD, known_RHD, inverse, shift, tolerance_R))
        if not len(rows):
            break
        for term in terms:
            term.keep(~done)
    return result


def _systems(y_RHD: Tensor, known_RHD: Tensor, terms: Sequence[Term]) -> tuple[Tensor, Tensor]:
    """inverse_RDHH, shift_RHD: inverse (pull - shift) solves (I + sum rho K^T K) x = pull for the unknown entries."""
    R, H, D = y_RHD.shape
    eye = torch.eye(H, dtype=y_RHD.dtype, device=y_RHD.device)
    P_DHH = eye.repeat(D, 1, 1)
    for term in terms:
        P_DHH[term.dims] += term.rho * (term.K.T @ term.K)
    column = torch.arange(D, device=y_RHD.device).repeat(R)[:, None]  # one system for each entry and set of known rows
    keys, which = torch.cat([column, known_RHD.mT.reshape(R * D, H)], 1).unique(dim=0, return_inverse=True)
    known_UH, P_UHH, which = keys[:, 1:].bool(), P_DHH[keys[:, 0]], which.view(R, D)
    free_UHH = ~known_UH[:, :, None] & ~known_UH[:, None]
    inverse_UHH = torch.linalg.inv(torch.where(free_UHH, P_UHH, eye)) * free_UHH
    shift = (P_UHH[which] @ torch.where(known_RHD, y_RHD, 0).mT[..., None])[..., 0].mT
    return inverse_UHH[which], shift
