"""Under which name a camera player publishes each recorded topic, and which topics it leaves out.

A name stays as it was recorded unless the user gives another or the type changes. Then it is the one that
image_transport gives: `BASE` for raw images, `BASE/compressed` for compressed ones, and camera_info next to
both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from robot_vision.errors import ConfigError
from robot_vision.geometry.intrinsics import info_topic
from robot_vision.messages.types import CAMERA_INFO, IMAGE
from robot_vision.recordings import Source
from robot_vision.recordings.bag import COMPRESSED_IMAGE, BagSource

_KINDS = {"raw": IMAGE, "compressed": COMPRESSED_IMAGE}  # by transport
# What image_transport's plug-ins add to a topic of CompressedImage.
_PLUGINS = ("/compressed", "/compressedDepth", "/zstd")
_DEPTH = "/compressedDepth"


@dataclass
class PlayerTopics:
    """What becomes of the topics of a recording.

    Attributes:
        kinds: output topic to its type, of all that can be published.
        images: recorded image topic and the type that is published to its output topic.
        infos: recorded camera_info to its output topics.
        notes: images that are left out, a line each.
        others: topics that are no camera's.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    images: dict[tuple[str, str], str] = field(default_factory=dict)
    infos: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def published_kind(transport: str, kind: str) -> str:
    """Returns the type as which a recorded image of a type is published."""
    return _KINDS.get(transport, kind)


def player_topics(
    source: Source,
    output_topics: Sequence[str] = (),
    transport: str = "as_recorded",
    namespace: str = "/",
) -> PlayerTopics:
    """Names what is played.

    Args:
        source: what is played.
        output_topics: bases, one for each camera in the order in which the source names them; empty keeps the
            recorded names.
        transport: `as_recorded`, `raw` or `compressed`.
        namespace: of the node. Recorded names are relative to it, unless they are in it.

    Raises:
        ConfigError: as many output topics as cameras are needed, and two would be published on one.
    """
    recorded = _recorded(source, transport)
    bases = list(dict.fromkeys(base for _, _, base in recorded))
    if output_topics and len(output_topics) != len(bases):
        raise ConfigError(
            f"{len(output_topics)} output_topics for {len(bases)} cameras: give one for each of "
            f"{', '.join(bases)}"
        )
    given = dict(zip(bases, (_base(t, COMPRESSED_IMAGE) for t in output_topics), strict=False))
    found = PlayerTopics()
    sources: dict[str, tuple[str, str]] = {}  # output topic to the recorded one and its camera

    def publish(topic: str, base: str, kind: str, output: str) -> bool:
        first, camera = sources.setdefault(output, (topic, base))
        if first == topic:
            found.kinds[output] = kind
        elif camera == base and kind != CAMERA_INFO:  # two forms of the same images
            found.notes.append(
                f"{topic} is left out: {first} has the same images, and is played on {output}"
            )
        else:
            raise ConfigError(
                f"{first} and {topic} would both be published on {output}: set output_topics to names in "
                "folders of their own, or topics to one of them"
            )
        return first == topic

    # First those that need no conversion.
    for topic, kind, base in sorted(
        recorded, key=lambda r: published_kind(transport, r[1]) != r[1]
    ):
        wanted = published_kind(transport, kind)
        if wanted != kind and topic.endswith(_DEPTH):
            found.notes.append(f"{topic} is left out: depth images need transport as_recorded")
            continue
        output = given.get(base, _local(base, namespace))
        if wanted == COMPRESSED_IMAGE:
            plugin = topic[len(base) :]
            keeps = kind == wanted and base not in given and isinstance(source, BagSource)
            output += plugin if plugin or keeps else "/compressed"
        if publish(topic, base, wanted, output):
            found.images[topic, wanted] = output
    kinds = source.kinds if isinstance(source, BagSource) else {}
    for base in bases:
        for info in (info_topic(base), f"{base}/camera_info"):
            if kinds.get(info) != CAMERA_INFO:
                continue
            output = _local(info, namespace)
            if base in given:
                nested = info.startswith(f"{base}/")
                output = f"{given[base]}/camera_info" if nested else info_topic(given[base])
            outputs = found.infos.setdefault(info, [])
            if publish(info, base, CAMERA_INFO, output) and output not in outputs:
                outputs.append(output)
    found.others = [t for t in kinds if t not in source.topics and t not in found.infos]
    return found


def _recorded(source: Source, transport: str) -> list[tuple[str, str, str]]:
    """Returns image topics, their types and their bases; those of files may be of both types."""
    if isinstance(source, BagSource):
        return [(t, source.kinds[t], _base(t, source.kinds[t])) for t in source.topics]
    forms = source.forms if transport == "as_recorded" else (transport,)
    return [(topic, _KINDS[form], topic) for topic in source.topics for form in forms]


def _base(topic: str, kind: str) -> str:
    """Returns an image topic without what image_transport adds to it."""
    for plugin in _PLUGINS:
        if kind == COMPRESSED_IMAGE and topic.endswith(plugin):
            return topic[: -len(plugin)]
    return topic


def _local(topic: str, namespace: str) -> str:
    if namespace == "/" or topic.startswith(f"{namespace}/"):
        return topic
    return topic.lstrip("/")
