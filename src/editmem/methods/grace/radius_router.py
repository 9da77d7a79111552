"""GRACE's codebook: keys with radii around them (arXiv 2211.11031, algorithm 1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from editmem.edits.edit import EncodedEdit
from editmem.hosts.forward import Call, Mode
from editmem.memory import Calibration, Kept, Match, Prompts
from editmem.routing.router import Router, at_prompt_ends
from editmem.storage.table import Rows

NO_KEY = -1.0  # the radius of unused rows


class RadiusRouter(Router):
    """A prompt matches the nearest key, if it lies within that key's radius (GRACE, section 3.1).

    A key is what goes into the site at the prompt's last token. A new key outside of all radii gets the
    initial one. Within the nearest key's radius, or nearer to it than both radii reach: if the target is the
    same, that radius grows to take the new prompt in; if not, both radii shrink to half the distance (section
    3.2). Every edit has a key of its own: the paper adds none where a radius grows, and loses the edit when a
    later one shrinks it. The radii are a function of the keys and targets in their order, and are worked out
    anew when edits are dropped, so that nothing stays of what was forgotten.

    Args:
        width: D, of the site's input.
        radius: the initial radius; None to calibrate it.
        reach: share of the median distance of neutral prompts, for the calibration.
    """

    keys = ("points", "labels", "radii")

    radius: Tensor

    def __init__(self, width: int, radius: float | None, reach: float) -> None:
        super().__init__()
        self.fixed_radius, self.reach = radius, reach
        self.register_buffer("radius", torch.tensor(torch.nan, dtype=torch.float32))
        self.points = Rows((width,), torch.float32, fill=torch.inf)
        self.labels = Rows((), torch.int64)
        self.radii = Rows((), torch.float32, fill=NO_KEY)

    def calibrate(self, host: Calibration) -> None:
        points = at_prompt_ends(host.neutral[0].x, host.neutral[0].call)[0][:, 0].float()
        apart = nn.functional.pdist(points).median()
        self.radius = self.reach * apart if self.fixed_radius is None else torch.full_like(apart, self.fixed_radius)

    def append(self, prompts: Prompts, edits: Sequence[EncodedEdit]) -> list[Kept]:
        points = at_prompt_ends(prompts.x, prompts.call)[0][: len(edits), 0].float()
        for point, edit in zip(points, edits, strict=True):
            self.insert(point, label_of(edit.target))
        return [Kept() for _ in edits]

    def insert(self, point: Tensor, label: int) -> None:
        """One key more, and what it does to the nearest one's radius."""
        radius = float(self.radius)
        if len(self.points):
            near, distance = self._nearest(point[None])
            row, apart = int(near), float(distance)
            if apart <= float(self.radii.data[row]) + float(self.radius):
                if int(self.labels.data[row]) == label:
                    self.radii.put(row, max(float(self.radii.data[row]), apart))
                else:
                    self.radii.put(row, min(float(self.radii.data[row]), apart / 2))
                    radius = min(radius, apart / 2)
        self.points.append(point[None])
        self.labels.append(torch.tensor([label]))
        self.radii.append(torch.tensor([radius], dtype=torch.float32))

    def _nearest(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest key of each of `[Q, D]`, and how far it is."""
        distance = torch.cdist(points, self.points.data, compute_mode="donot_use_mm_for_euclid_dist")
        distance = torch.where(self.radii.data >= 0, distance, torch.inf)
        nearest = distance.min(1)
        return nearest.indices, nearest.values

    def keep(self, rows: Tensor) -> None:
        points, labels = self.points.used[rows], self.labels.used[rows].tolist()
        self.points.replace(points[:0])
        self.labels.replace(self.labels.data[:0])
        self.radii.replace(self.radii.data[:0])
        for point, label in zip(points, labels, strict=True):
            self.insert(point, label)

    def decide(self, x: Tensor, call: Call, carry: dict[str, Tensor]) -> Tensor:
        points, found = at_prompt_ends(x, call)
        row, distance = self._nearest(points.flatten(0, 1).float())
        matched = found & (distance <= self.radii.data[row]).view(found.shape)
        edit = torch.where(matched, row.view(found.shape), -1)
        return edit.squeeze(1) if call.mode is Mode.BOUNDARY else edit

    def rank(self, prompts: Prompts, top: int) -> list[list[Match]]:
        """Scores are radius over distance: from 1 on the nearest key's edit acts; a farther one's is no higher."""
        points = at_prompt_ends(prompts.x, prompts.call)[0][:, 0].float()
        distance = torch.cdist(points, self.points.used, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = torch.where(self.radii.used >= 0, distance, torch.inf).sort(dim=1, stable=True)
        radii = self.radii.used[nearest.indices]
        scores = (radii / nearest.values.clamp(min=1e-12)).cummin(1).values
        columns = (nearest.indices, scores, nearest.values, radii)
        return [
            [
                Match(row, score, 1.0, {"distance": apart, "radius": radius})
                for row, score, apart, radius in zip(*entries, strict=True)
                if radius >= 0
            ]
            for entries in zip(*(column[:, :top].tolist() for column in columns), strict=True)
        ]


def label_of(target: Sequence[int]) -> int:
    """A number for a target, the same for the same tokens."""
    label = 0
    for token in target:
        label = (label * 1_000_003 + token + 1) % ((1 << 61) - 1)
    return label
