"""The names of a search's configurations: `c0007` for a trial's end, `c0007-s21-m0750` for a stop of it mixed with the base model."""

import re
from dataclasses import dataclass

from froc.errors import InputError

EXTERNAL_METHOD = "external"
"""What stands for the method of a configuration that another tool made."""
_FORM = re.compile(r"c(\d{4,})(?:-s(\d+)(?:-m(\d{4,}))?)?", re.ASCII)


@dataclass(frozen=True, order=True)
class ConfigurationId:
    """Number of a trial, step at which its training stopped, and weight of the trained model in a mix with the base, in thousandths.

    stop is None for the end of training; mix is None where nothing was mixed. `str` prints the name that files carry.

    >>> config = ConfigurationId.parse("c0007-s21-m0750")
    >>> config.trial, config.stop, config.mix
    (7, 21, 750)
    >>> str(config.of_trial), str(ConfigurationId(12).variant(stop=40, mix=0.5))
    ('c0007', 'c0012-s40-m0500')
    """

    trial: int
    stop: int | None = None
    mix: int | None = None

    @classmethod
    def parse(cls, name: str) -> "ConfigurationId":
        """The configuration that a name is of; InputError for a name that no search gives."""
        match = _FORM.fullmatch(name)
        if match is None:
            raise InputError(f"{name!r} is no configuration of a search; one is named such as c0007 or c0007-s21-m0750")
        trial, stop, mix = (None if digits is None else int(digits) for digits in match.groups())
        assert trial is not None
        return cls(trial, stop, mix)

    @property
    def of_trial(self) -> "ConfigurationId":
        """The end of the training that this is a stop or a mix of."""
        return ConfigurationId(self.trial)

    @property
    def unmixed(self) -> "ConfigurationId":
        """The same stop, not mixed with the base model."""
        return ConfigurationId(self.trial, self.stop)

    def variant(self, stop: int, mix: float) -> "ConfigurationId":
        """A stop of the same training, mixed: `mix` is the weight of the trained model, 1 for it alone."""
        return ConfigurationId(self.trial, stop, round(1000 * mix))

    def __str__(self) -> str:
        parts = [f"c{self.trial:04d}"]
        if self.stop is not None:
            parts.append(f"s{self.stop}")
        if self.mix is not None:
            parts.append(f"m{self.mix:04d}")
        return "-".join(parts)
