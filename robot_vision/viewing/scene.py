"""A Rerun recording: entities named as their topics, over the stamps of images, and how they lie."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_vision.errors import ConfigError
from robot_vision.geometry.camera_pose import CameraPose
from robot_vision.geometry.rigid import xyzw_from_matrix
from robot_vision.images.canvas import Colour, colour_of_name

TIMELINE = "stamp"  # the one of all entities: of the image that they are about
MISSING = "Rerun is not installed: pip install 'robot_vision[view]' (or pip install rerun-sdk)"
_APPLICATION = "robot_vision"
_PATH = 400  # positions of a path; a longer one is thinned out
_EVERY = 10  # positions from one drawing of a path to the next
_ELLIPSOID = 2.7955  # standard deviations: it holds 95 % of a normal distribution in space
_MILLIMETRES = 1000.0
_BAR = 24  # characters of the longest bar

SPACE, PICTURE, CHART, TEXT = "space", "picture", "chart", "text"


def load_rerun() -> ModuleType:
    """Imports Rerun.

    Raises:
        ConfigError: it is not installed; with the command that does it.
    """
    try:
        import rerun
    except ImportError as error:
        raise ConfigError(MISSING) from error
    module: ModuleType = rerun
    return module


class Scene:
    """Writes what is seen; an entity is named as its topic.

    Every entity has a panel from its first message on. Nothing is seen or written before `save` or `connect`.

    Args:
        title: of the recording, for people.

    Attributes:
        changed: whether there is a panel that `send_layout` has not sent.

    Raises:
        ConfigError: Rerun is not installed.
    """

    def __init__(self, title: str) -> None:
        self._rr = load_rerun()
        self._stream = self._rr.RecordingStream(_APPLICATION)
        # When it was logged says nothing of a recording, and live it is the stamp.
        self._stream.set_log_time_enabled(False)
        self._stream.set_log_tick_enabled(False)
        self._stream.send_recording_name(title)
        self._panels: dict[tuple[str, str], list[str]] = {}  # kind and name to entities
        self._paths: dict[str, deque[Any]] = {}
        self._steps: dict[str, int] = {}
        self.changed = False

    def save(self, path: Path) -> None:
        """Writes all that follows to a file.

        Raises:
            ConfigError: it cannot be written.
        """
        try:
            self._stream.save(path)
        except Exception as error:  # Rerun raises what Rust's libraries say
            raise ConfigError(f"{path} cannot be written: {error}") from error

    def connect(self, url: str) -> None:
        """Sends all that follows to a server, such as `rerun+http://127.0.0.1:9876/proxy`."""
        self._stream.connect_grpc(url)

    def flush(self) -> None:
        """Sends or writes what waits."""
        self._stream.flush()

    def close(self) -> None:
        """Ends the file or the connection."""
        self._stream.disconnect()

    def at(self, stamp_ns: int) -> None:
        """Sets the stamp of all that follows, in nanoseconds since 1970."""
        self._stream.set_time(TIMELINE, timestamp=np.datetime64(stamp_ns, "ns"))

    def part(self, name: str) -> str:
        """Returns any text as one part of an entity's name."""
        part: str = self._rr.escape_entity_path_part(name)
        return part

    # What is seen

    def jpeg(self, entity: str, data: bytes) -> None:
        """Shows a JPEG."""
        self._panel(PICTURE, entity, entity)
        self._log(entity, self._rr.EncodedImage(contents=data, media_type="image/jpeg"))

    def depth(self, entity: str, metres: NDArray[np.floating]) -> None:
        """Shows distances (h, w), to the millimetre and at most 65 m; what is not finite is left empty."""
        import cv2

        fine = np.where(np.isfinite(metres), metres, 0) * _MILLIMETRES
        done, data = cv2.imencode(".png", np.clip(np.rint(fine), 0, 65535).astype(np.uint16))
        assert done
        self._panel(PICTURE, entity, entity)
        image = self._rr.EncodedDepthImage(
            data.tobytes(), media_type="image/png", meter=_MILLIMETRES, colormap="viridis"
        )
        self._log(entity, image)

    def mask(self, entity: str, ids: NDArray[np.unsignedinteger]) -> None:
        """Shows ids of classes (h, w)."""
        self._panel(PICTURE, entity, entity)
        self._log(entity, self._rr.SegmentationImage(ids))

    def names(self, entity: str, names: Mapping[int, str]) -> None:
        """Names the classes of a mask, each in the colour that its name has everywhere."""
        infos = [
            self._rr.AnnotationInfo(id=i, label=name, color=colour_of_name(name))
            for i, name in names.items()
        ]
        self._stream.log(entity, self._rr.AnnotationContext(infos), static=True)

    def bars(self, entity: str, shares: Sequence[tuple[str, float]]) -> None:
        """Shows names with their shares of 1 as bars, and each over time."""
        rows = [
            f"| {_cell(name)} | {100 * share:.1f} % | {'█' * round(_BAR * min(max(share, 0.0), 1.0))} |"
            for name, share in shares
        ]
        self.text(entity, "\n".join(["| class | score | |", "|:--|--:|:--|", *rows]))
        self.numbers(f"{entity}/score", dict(shares))

    def numbers(self, entity: str, values: Mapping[str, float]) -> None:
        """Shows numbers over time, by name."""
        self._panel(CHART, entity, entity)
        for name, value in values.items():
            self._log(f"{entity}/{self.part(name)}", self._rr.Scalars(float(value)))

    def text(self, entity: str, markdown: str) -> None:
        """Shows a text."""
        self._panel(TEXT, entity, entity)
        self._log(entity, self._rr.TextDocument(markdown, media_type="text/markdown"))

    def pose(self, entity: str, frame: str, pose: CameraPose, known: bool = True) -> None:
        """Shows a pose as axes, its 95 % ellipsoid, the way until now, and standard deviations over time.

        Args:
            entity: of it.
            frame: that it is in: there is a panel a frame.
            pose: with its covariance.
            known: whether its covariance is known.
        """
        rr = self._rr
        self._panel(SPACE, frame, entity)
        self._log(
            f"{entity}/camera",
            rr.Transform3D(translation=pose.position, quaternion=pose.orientation_xyzw),
            rr.TransformAxes3D(0.3),
        )
        if known:
            values, axes = np.linalg.eigh(pose.covariance[:3, :3])
            deviations = np.sqrt(np.maximum(values, 0.0))
            axes[:, 0] *= np.sign(np.linalg.det(axes))
            self._log(
                f"{entity}/ellipsoid_95",
                rr.Ellipsoids3D(
                    centers=[pose.position],
                    half_sizes=[_ELLIPSOID * deviations],
                    quaternions=[xyzw_from_matrix(axes)],
                    colors=[colour_of_name(entity)],
                ),
            )
            rotation = float(np.sqrt(max(np.trace(pose.covariance[3:, 3:]), 0.0)))
            self.numbers(
                f"{entity}/deviation",
                {
                    "position_m": float(np.sqrt((deviations**2).sum())),
                    "rotation_deg": float(np.degrees(rotation)),
                },
            )
        self._walk(entity, pose.position)

    def points(
        self,
        entity: str,
        frame: str,
        positions: NDArray[Any],
        colour: Colour | None = None,
        labels: Sequence[str] | None = None,
        radius: float | NDArray[Any] = 0.03,
        static: bool = False,
    ) -> None:
        """Shows positions (N, 3) in a frame, all with one radius or each with its own (N,), metres."""
        self._panel(SPACE, frame, entity)
        points = self._rr.Points3D(
            np.asarray(positions, np.float32),
            colors=[colour or colour_of_name(entity)],
            radii=np.atleast_1d(radius),
            labels=labels,
            show_labels=False,
        )
        self._stream.log(entity, points, static=static)

    def lines(
        self,
        entity: str,
        frame: str,
        strips: Sequence[NDArray[Any]],
        colours: Sequence[Colour],
        labels: Sequence[str] | None = None,
        static: bool = False,
    ) -> None:
        """Shows lines, each (n, 3), in a frame."""
        self._panel(SPACE, frame, entity)
        lines = self._rr.LineStrips3D(
            [np.asarray(strip, np.float32) for strip in strips], colors=list(colours), labels=labels
        )
        self._stream.log(entity, lines, static=static)

    def send_layout(self) -> None:
        """Sends how the panels lie: pictures on the left, spaces on the right, texts and charts below."""
        import rerun.blueprint as rrb

        def views(kind: str) -> list[Any]:
            found = {name: es for (k, name), es in sorted(self._panels.items()) if k == kind}
            if kind == SPACE:
                return [
                    rrb.Spatial3DView(name=name, contents=[f"{e}/**" for e in entities])
                    for name, entities in found.items()
                ]
            view = {
                PICTURE: rrb.Spatial2DView,
                CHART: rrb.TimeSeriesView,
                TEXT: rrb.TextDocumentView,
            }[kind]
            contents = "$origin/**" if kind == CHART else "$origin"
            names = found if kind == CHART else short_names(list(found))  # narrow panels clip them
            return [
                view(origin=o, name=n, contents=contents) for o, n in zip(found, names, strict=True)
            ]

        pictures, spaces, charts, texts = map(views, (PICTURE, SPACE, CHART, TEXT))
        left = [rrb.Grid(*pictures)] if pictures else []
        # The frame with the most in it, such as the map with its poses, lies on top.
        sizes = [len(self._panels[SPACE, view.name]) for view in spaces]
        top = sizes.index(max(sizes)) if sizes else 0
        right: list[Any] = [rrb.Tabs(*spaces, active_tab=top)] if spaces else []
        right += [rrb.Grid(*texts)] if texts else []
        right += [rrb.Tabs(*charts)] if charts else []
        columns = [*left, *([rrb.Vertical(*right)] if right else [])]
        if columns:
            whole = rrb.Blueprint(rrb.Horizontal(*columns), auto_views=False, collapse_panels=True)
            self._stream.send_blueprint(whole)
        self.changed = False

    def _log(self, entity: str, *things: Any) -> None:
        self._stream.log(entity, *things)

    def _panel(self, kind: str, name: str, entity: str) -> None:
        entities = self._panels.setdefault((kind, name), [])
        if entity not in entities:
            entities.append(entity)
            self.changed = True

    def _walk(self, entity: str, position: NDArray[np.float64]) -> None:
        way = self._paths.setdefault(entity, deque())
        way.append(position)
        if len(way) > _PATH:
            self._paths[entity] = way = deque(list(way)[::2])
        self._steps[entity] = self._steps.get(entity, 0) + 1
        if self._steps[entity] % _EVERY == 0:
            line = self._rr.LineStrips3D(
                [np.asarray(way, np.float32)], colors=[colour_of_name(entity)]
            )
            self._log(f"{entity}/way", line)


def short_names(topics: Sequence[str]) -> list[str]:
    """Returns of each topic as much of its end as no other one has: `depth`, `front/image_raw`."""

    def ends(topic: str) -> list[str]:
        parts = topic.strip("/").split("/")
        return ["/".join(parts[-n:]) for n in range(1, len(parts) + 1)]

    count = Counter(end for topic in topics for end in ends(topic))
    return [next((e for e in ends(topic) if count[e] == 1), topic) for topic in topics]


def _cell(text: str) -> str:
    """Returns text that ends no cell of a table in Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")
