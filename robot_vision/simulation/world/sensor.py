"""What lies between the scene and the pixels: exposure, colour balance, lamps, lens blur and noise."""

from __future__ import annotations

import itertools
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context

import cv2
import numpy as np
from numpy.typing import NDArray

from robot_vision.simulation.drive import DriveFrame
from robot_vision.simulation.world.renderer import Camera, Renderer
from robot_vision.simulation.world.world import World

_CHUNK = 16  # frames that a rendering process gets at a time


@dataclass(frozen=True)
class Sensor:
    """Conditions of one recording; each frame then differs a little, by its index.

    Attributes:
        seed: of everything random.
        lamps: how much the lamps of the rooms differ from the plan, relative (one sigma).
        exposure: how much one frame's exposure differs from the recording's, relative (one sigma).
        balance: how much the recording's colour channels differ, relative (one sigma).
        noise: sigma of the pixel noise, grey levels.
        blur: sigma of the lens, pixels.
        vary: redraw the lamps and the balance for every frame, as training wants it.
    """

    seed: int = 0
    lamps: float = 0.10
    exposure: float = 0.05
    balance: float = 0.03
    noise: float = 4.0
    blur: float = 0.6
    vary: bool = False

    def expose(
        self, image: NDArray[np.uint8], rooms: NDArray[np.int16], index: int
    ) -> NDArray[np.uint8]:
        """Returns the camera's image of a rendered one.

        Args:
            image: RGB uint8 (H, W, 3), as rendered.
            rooms: int16 (H, W), index of the room seen at each pixel, or -1.
            index: of the frame in its recording.
        """
        fixed = np.random.default_rng((self.seed, index) if self.vary else (self.seed,))
        rng = np.random.default_rng((self.seed, index, 1))
        lamps = np.exp(fixed.normal(0, self.lamps, 64))
        balance = np.exp(fixed.normal(0, self.balance, 3) + rng.normal(0, self.exposure))
        gain = (lamps[rooms][..., None] * balance).astype(np.float32)
        lit = cv2.multiply(image, gain, dtype=cv2.CV_32F)
        if self.blur > 0:
            lit = cv2.GaussianBlur(lit, (5, 5), self.blur)
        if self.noise > 0:
            h, w = image.shape[:2]
            tile = _noise_tile()
            y, x = rng.integers(
                0, len(tile), 2
            )  # a random cut of one tile: cheaper than fresh noise
            noise = np.take(np.take(tile, np.arange(y, y + h), 0, mode="wrap"),
                            np.arange(x, x + w), 1, mode="wrap")  # fmt: skip
            lit = cv2.scaleAdd(noise, self.noise, lit)
        return np.clip(lit + 0.5, 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _noise_tile() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((509, 509, 3), np.float32)


def render_frames(
    world: World,
    frames: Sequence[DriveFrame],
    sensor: Sensor,
    camera: Camera | None = None,
    workers: int = 1,
) -> Iterator[NDArray[np.uint8]]:
    """Yields the camera's RGB uint8 (height, width, 3) image of each frame, in order.

    Args:
        world: what is seen.
        frames: where from.
        sensor: the recording's conditions.
        camera: intrinsics and image size.
        workers: processes; the images do not depend on it.
    """
    if workers <= 1:
        renderer = Renderer(world, camera)
        for index, frame in enumerate(frames):
            yield _render(renderer, sensor, index, frame)
        return
    jobs = list(enumerate(frames))
    chunks = iter([jobs[i : i + _CHUNK] for i in range(0, len(jobs), _CHUNK)])
    # spawn: a forked child would share the parent's DDS and inference threads in an unknown state
    with ProcessPoolExecutor(
        workers, get_context("spawn"), _start_worker, (world, sensor, camera)
    ) as pool:
        # A few chunks ahead and no more: a slow consumer must not find all images in memory.
        waiting = deque(
            pool.submit(_work, chunk) for chunk in itertools.islice(chunks, 2 * workers)
        )
        try:
            while waiting:
                yield from waiting.popleft().result()
                waiting.extend(pool.submit(_work, chunk) for chunk in itertools.islice(chunks, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def _render(renderer: Renderer, sensor: Sensor, index: int, frame: DriveFrame) -> NDArray[np.uint8]:
    image, rooms = renderer.render_with_rooms(frame.T_map_camera)
    return sensor.expose(image, rooms, index)


_worker: tuple[Renderer, Sensor] | None = None  # of a pool's process


def _start_worker(world: World, sensor: Sensor, camera: Camera | None) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends this process
    cv2.setNumThreads(1)
    _worker = Renderer(world, camera), sensor


def _work(chunk: list[tuple[int, DriveFrame]]) -> list[NDArray[np.uint8]]:
    assert _worker is not None
    return [_render(*_worker, index, frame) for index, frame in chunk]
