"""`gentraj choose`: which checkpoint of a run to take, by data alone."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated

from ..config import settings, write_json
from ..device import pick_device
from ..files import check_output
from ..progress import print_saved, say
from ..runs.judge.choosing import ChooseConfig, rank_checkpoints, table, to_store
from ..runs.kinds.folder import RunFolder
from .options import GROUP, Command, Device, RunPath


@settings
class Choose(Command):
    """Rank the checkpoints of a run without a simulator, and say which one to take.

    Each checkpoint is measured by its losses on held-out episodes (--held-out of `gentraj train`) and by its returns in
    a world model (--world). One of these measures decides (--by). With --episodes, the checkpoints also play in their
    environment; the rank correlation then shows how well each measure predicts the return, which itself decides
    nothing.

    Examples: gentraj choose runs/iql
              gentraj choose runs/iql --by action_error --use
              gentraj choose runs/iql --world runs/world --episodes 20
    """

    run: RunPath
    """The folder of a run, as `gentraj train` writes it, with its newest --training.keep checkpoints."""
    config: Annotated[ChooseConfig, GROUP] = field(default_factory=ChooseConfig)
    use: bool = False
    """Make the chosen checkpoint the one that every command takes from now on, unless it is given another --step. To
    return to the newest checkpoint, delete RUN/choice.json; a resumed training deletes it, too."""
    out: Path | None = None
    """A JSON file to write the measures to."""
    device: Device = None

    def __call__(self) -> None:
        if self.out is not None:
            check_output(self.out, "--out")
        ranking = rank_checkpoints(self.run, self.config, pick_device(self.device))
        if self.out is not None:
            say(f"measures in {write_json(self.out, to_store(ranking, self.config))}")
        if self.use:
            RunFolder(self.run).choose(ranking.step)
            say(f"{self.run} is taken at step {ranking.step:,} from now on")
        print_saved(table(ranking, self.config))
