"""What a study takes from the literature: published scores, and protocols by name."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MetricName = Literal["f1_micro", "f1_macro", "uar", "f1_weighted", "mcc", "log_loss", "brier"]
Text = Annotated[str, Field(min_length=1)]
#: Names of metrics in papers. The weighted accuracy of emotion research is the share of right
#: decisions: F1-micro, where each utterance has one label.
_METRIC_NAMES: Final = {"wa": "f1_micro", "accuracy": "f1_micro", "ua": "uar"}
#: Options of published protocols.
_PROTOCOLS: Final[Mapping[str, Mapping[str, Any]]] = {
    "iemocap4-session": {
        "classes": ("ang", "hap", "sad", "neu"),
        "merge": {"exc": "hap"},
        "outer": "session",
    }
}


class Published(BaseModel):
    """A score of the literature, with its protocol and source."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: Text
    metric: MetricName
    value: float
    protocol: Text
    source: Text

    @field_validator("metric", mode="before")
    @classmethod
    def _find_metric(cls, name: str) -> str:
        return _METRIC_NAMES.get(str(name).lower(), name)

    @model_validator(mode="after")
    def _check_value(self) -> Self:
        if abs(self.value) > 1 and self.metric not in ("log_loss", "brier"):
            raise ValueError(f"{self.system} has {self.value:g}; write 57.7 % as .577")
        return self


def expand_protocol(given: Any) -> Any:
    """Expand a published protocol into its options; refuse others beside it."""
    name = given.get("protocol") if isinstance(given, dict) else None
    taken = _PROTOCOLS.get(str(name), {})
    for option, value in taken.items():
        found = given.get(option, value)
        if json.dumps(found) != json.dumps(value):  # a tuple may be given as a list
            words = f"--{option} {found!r} contradicts --protocol {name}"
            raise ValueError(f"{words}, which has {value!r}: leave out one of them")
    return given | taken if taken else given
