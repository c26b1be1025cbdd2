"""The demo's world: four rooms around a corridor, each with its own walls, floor, light and furniture."""

from __future__ import annotations

from robot_vision.simulation.world.world import Box, Door, Finish, Panel, Room, World

WHITE = (236, 234, 228)
OAK = (176, 128, 78)
DARK_OAK = (104, 70, 44)
STEEL = (176, 182, 188)
BLACK = (32, 33, 36)

_CEILING = Finish("plaster", WHITE, (210, 208, 202))
_FRAME = Finish("planks", (206, 190, 160), (150, 130, 100))


def table(
    low: tuple[float, float], high: tuple[float, float], height: float, finish: Finish
) -> tuple[Box, ...]:
    """Returns a table: a top of 6 cm and four legs."""
    (x0, y0), (x1, y1), leg = low, high, 0.07
    plain = Finish("plain", finish.accent, BLACK)
    legs = [(x, y) for x in (x0 + 0.04, x1 - 0.04 - leg) for y in (y0 + 0.04, y1 - 0.04 - leg)]
    top = Box((x0, y0, height - 0.06), (x1, y1, height), plain, finish)
    return (
        top,
        *(Box((x, y, 0.0), (x + leg, y + leg, height - 0.06), plain, plain) for x, y in legs),
    )


def _kitchen() -> Room:
    cabinet = Finish("cabinet", (62, 118, 104), (222, 200, 140))
    worktop = Finish("terrazzo", (214, 210, 204), (120, 116, 110))
    return Room(
        name="kitchen",
        low=(0.0, 1.02),
        high=(4.4, 5.0),
        height=2.6,
        wall=Finish("tiles", (238, 226, 186), (196, 180, 140)),
        floor=Finish("checker", (226, 222, 214), (92, 104, 112)),
        ceiling=_CEILING,
        light=(1.1, 1.06, 0.98),
        loop=(
            (3.3, 0.0), (3.3, 1.7), (3.35, 2.4), (3.2, 3.75), (1.25, 3.75), (1.1, 1.85), (3.2, 1.8),
            (3.3, 0.9), (3.3, 0.0),
        ),
        boxes=(
            Box((0.0, 4.35, 0.0), (3.3, 5.0, 0.9), cabinet, worktop),
            Box((0.0, 4.6, 1.65), (2.2, 5.0, 2.3), cabinet, cabinet),
            Box((3.6, 4.3, 0.0), (4.4, 5.0, 1.95), Finish("fridge", STEEL, (90, 94, 98)), worktop),
            Box((0.0, 2.4, 0.0), (0.45, 4.35, 0.9), cabinet, worktop),
            Box((0.05, 3.0, 0.9), (0.4, 3.5, 1.2), Finish("oven", BLACK, (200, 90, 40)), worktop),
            *table((1.75, 2.35), (2.6, 3.15), 0.76, Finish("planks", OAK, DARK_OAK)),
            Box((2.0, 2.6, 0.76), (2.25, 2.85, 0.95), Finish("plain", (206, 60, 40)),
                Finish("plain", (240, 200, 60))),
        ),
        panels=(
            Panel("west", 1.7, 1.5, 0.9, 1.1, Finish("window", (150, 200, 236), WHITE)),
            Panel("east", 3.0, 1.5, 1.3, 0.9, Finish("art", (230, 120, 60), (60, 40, 30))),
            Panel("south", 1.4, 1.55, 1.0, 0.8, Finish("art", (250, 210, 80), (40, 90, 60))),
            Panel("north", 2.75, 1.6, 0.9, 0.8, Finish("window", (170, 212, 240), WHITE)),
        ),
    )  # fmt: skip


def _office() -> Room:
    desk = Finish("planks", (214, 190, 150), (80, 84, 92))
    screen = Finish("screen", (24, 40, 74), (120, 190, 240))
    books = Finish("books", (120, 80, 50), (60, 42, 28))
    return Room(
        name="office",
        low=(4.52, 1.02),
        high=(10.0, 5.0),
        height=2.6,
        wall=Finish("stripes", (136, 164, 196), (120, 148, 182)),
        floor=Finish("carpet", (84, 92, 120), (60, 66, 92)),
        ceiling=Finish("panels", (226, 230, 234), (180, 184, 190)),
        light=(0.98, 1.04, 1.12),
        loop=(
            (5.7, 0.0), (5.7, 1.7), (5.5, 2.3), (5.5, 4.0), (7.4, 4.1), (9.1, 4.0), (9.1, 2.0),
            (7.4, 1.85), (5.8, 1.8), (5.7, 0.9), (5.7, 0.0),
        ),
        boxes=(
            *table((6.3, 2.45), (8.3, 3.35), 0.74, desk),
            Box((6.6, 2.85, 0.74), (7.2, 2.93, 1.15), screen, Finish("plain", BLACK)),
            Box((7.5, 2.85, 0.74), (8.1, 2.93, 1.15), screen, Finish("plain", BLACK)),
            Box((9.6, 2.6, 0.0), (10.0, 4.4, 2.0), books, Finish("planks", DARK_OAK)),
            Box((7.0, 4.6, 0.0), (9.2, 5.0, 0.8), Finish("drawers", (200, 204, 210), (90, 96, 104)),
                Finish("plain", (220, 222, 226))),
            Box((8.9, 1.02, 0.0), (9.6, 1.4, 1.2), Finish("drawers", (190, 70, 60), (60, 30, 30)),
                Finish("plain", (170, 60, 54))),
            Box((4.52, 4.5, 0.0), (4.92, 5.0, 0.5), Finish("plain", (180, 92, 52)),
                Finish("foliage", (60, 120, 50), (30, 70, 30))),
            Box((4.6, 4.6, 0.5), (4.86, 4.9, 1.4), Finish("foliage", (70, 140, 60), (34, 80, 34)),
                Finish("foliage", (70, 140, 60), (34, 80, 34))),
        ),
        panels=(
            Panel("north", 6.0, 1.5, 1.6, 1.2, Finish("window", (196, 222, 244), (240, 240, 240))),
            Panel("north", 8.2, 1.6, 1.7, 1.0, Finish("whiteboard", (246, 248, 250), (40, 80, 180))),
            Panel("south", 7.6, 1.5, 1.3, 0.9, Finish("art", (60, 90, 190), (20, 26, 50))),
            Panel("west", 3.0, 1.5, 1.2, 1.2, Finish("chart", (250, 250, 244), (200, 60, 60))),
            Panel("east", 1.9, 1.5, 0.7, 1.0, Finish("art", (90, 200, 190), (30, 60, 60))),
        ),
    )  # fmt: skip


def _workshop() -> Room:
    bench = Finish("planks", (150, 104, 60), (74, 54, 36))
    crate = Finish("crate", (190, 146, 88), (110, 78, 44))
    return Room(
        name="workshop",
        low=(0.0, -5.2),
        high=(5.2, -1.02),
        height=2.8,
        wall=Finish("bricks", (164, 84, 64), (196, 186, 172)),
        floor=Finish("concrete", (138, 138, 134), (104, 104, 100)),
        ceiling=Finish("planks", (120, 112, 100), (70, 66, 60)),
        light=(1.0, 0.96, 0.88),
        loop=(
            (1.6, 0.0), (1.6, -1.7), (1.4, -2.3), (1.25, -4.0), (3.0, -4.25), (4.3, -4.0),
            (4.2, -2.0), (2.9, -1.75), (1.7, -1.9), (1.6, -0.9), (1.6, 0.0),
        ),
        boxes=(
            *table((2.2, -3.5), (3.5, -2.6), 0.86, bench),
            Box((2.5, -3.3, 0.86), (2.85, -2.95, 1.2), Finish("plain", (216, 160, 30), BLACK),
                Finish("plain", (60, 60, 64))),
            Box((0.0, -4.6, 0.0), (0.55, -2.2, 0.85), Finish("drawers", (196, 44, 40), (30, 30, 30)),
                Finish("plain", (70, 72, 76))),
            Box((1.4, -5.2, 0.0), (2.3, -4.75, 1.9), Finish("shelf", (150, 156, 160), (60, 90, 160)),
                Finish("plain", STEEL)),
            Box((4.6, -5.2, 0.0), (5.2, -4.5, 0.7), crate, crate),
            Box((4.65, -5.15, 0.7), (5.15, -4.65, 1.2), crate, crate),
            Box((4.75, -3.3, 0.0), (5.2, -2.7, 1.0), Finish("hazard", (240, 196, 20), (26, 26, 26)),
                Finish("plain", (50, 110, 60))),
        ),
        panels=(
            Panel("west", -3.3, 1.6, 2.0, 1.1, Finish("pegboard", (206, 182, 140), (60, 60, 66))),
            Panel("south", 3.4, 1.6, 1.7, 1.0, Finish("window", (186, 204, 210), (70, 80, 70))),
            Panel("east", -1.9, 1.6, 1.0, 1.0, Finish("hazard", (244, 200, 20), (24, 24, 24))),
            Panel("north", 3.6, 1.6, 1.4, 1.0, Finish("chart", (240, 236, 220), (50, 90, 170))),
        ),
    )  # fmt: skip


def _bedroom() -> Room:
    wood = Finish("planks", (128, 84, 56), (84, 52, 34))
    sheet = Finish("quilt", (196, 92, 130), (240, 222, 230))
    return Room(
        name="bedroom",
        low=(5.32, -5.0),
        high=(10.0, -1.02),
        height=2.5,
        wall=Finish("wallpaper", (206, 176, 196), (168, 120, 156)),
        floor=Finish("planks", (182, 132, 86), (128, 88, 54)),
        ceiling=Finish("plaster", (240, 230, 224), (214, 204, 196)),
        light=(1.02, 0.88, 0.76),
        loop=(
            (7.6, 0.0), (7.6, -1.7), (7.4, -2.1), (6.2, -2.5), (6.2, -4.2), (7.2, -4.2), (7.5, -3.1),
            (8.3, -2.0), (7.7, -1.7), (7.6, -0.9), (7.6, 0.0),
        ),
        boxes=(
            Box((8.1, -4.6, 0.0), (10.0, -2.9, 0.5), sheet, sheet),
            Box((9.5, -4.5, 0.5), (9.95, -3.0, 0.62), Finish("plain", (244, 238, 232)),
                Finish("plain", (246, 242, 238))),
            Box((9.3, -2.8, 0.0), (10.0, -2.3, 0.55), wood, wood),
            Box((9.5, -2.65, 0.55), (9.75, -2.4, 0.95), Finish("plain", (252, 226, 150)),
                Finish("plain", (255, 244, 200))),
            Box((5.32, -4.0, 0.0), (5.85, -2.4, 2.1), Finish("cabinet", (226, 216, 200), (150, 110, 70)),
                wood),
            Box((6.0, -5.0, 0.0), (7.4, -4.65, 0.8), Finish("drawers", (140, 96, 64), (220, 190, 120)),
                wood),
        ),
        panels=(
            Panel("east", -3.75, 1.6, 1.4, 0.8, Finish("art", (240, 150, 170), (90, 40, 70))),
            Panel("south", 6.7, 1.5, 1.0, 0.9, Finish("mirror", (196, 214, 222), (180, 140, 70))),
            Panel("south", 9.0, 1.5, 1.5, 1.2, Finish("window", (70, 84, 130), (236, 230, 220))),
            Panel("north", 9.1, 1.5, 1.0, 1.0, Finish("art", (130, 90, 190), (40, 24, 60))),
            Panel("north", 6.1, 1.5, 0.7, 1.0, Finish("art", (220, 200, 120), (90, 60, 30))),
        ),
    )  # fmt: skip


def _corridor() -> Room:
    return Room(
        name="corridor",
        low=(0.0, -0.9),
        high=(10.0, 0.9),
        height=2.5,
        wall=Finish("wainscot", (222, 222, 206), (92, 112, 84)),
        floor=Finish("runner", (150, 44, 44), (120, 100, 84)),
        ceiling=Finish("panels", (232, 232, 228), (190, 190, 186)),
        light=(0.95, 0.95, 0.9),
        boxes=(
            Box((4.2, 0.62, 0.0), (5.0, 0.9, 0.85), Finish("drawers", (96, 70, 50), (200, 170, 90)),
                Finish("planks", OAK)),
            Box((9.6, -0.25, 0.0), (10.0, 0.25, 0.6), Finish("plain", (230, 230, 226)),
                Finish("foliage", (60, 130, 50), (30, 80, 30))),
        ),
        panels=(
            Panel("north", 1.5, 1.5, 0.8, 1.0, Finish("art", (70, 130, 180), (200, 170, 80))),
            Panel("north", 4.6, 1.5, 0.6, 0.8, Finish("mirror", (200, 216, 222), (180, 140, 70))),
            Panel("north", 8.0, 1.5, 1.2, 0.8, Finish("art", (200, 80, 60), (50, 40, 40))),
            Panel("south", 4.6, 1.5, 1.4, 0.8, Finish("art", (110, 170, 90), (240, 236, 220))),
            Panel("south", 9.1, 1.5, 0.8, 0.8, Finish("chart", (250, 246, 236), (60, 130, 90))),
            Panel("west", 0.0, 1.4, 1.0, 1.4, Finish("window", (188, 218, 240), WHITE)),
            Panel("east", 0.0, 1.6, 1.0, 1.0, Finish("art", (240, 200, 60), (30, 50, 110))),
        ),
    )  # fmt: skip


def default_world() -> World:
    """Returns the demo's world: kitchen, office, workshop and bedroom around a corridor, 10 x 10 m."""
    doors = []
    for x, y in ((3.3, 0.9), (5.7, 0.9), (1.6, -1.02), (7.6, -1.02)):
        doors.append(Door((x - 0.5, y), (x + 0.5, y + 0.12), 2.1, _FRAME))
    rooms = (_kitchen(), _office(), _workshop(), _bedroom(), _corridor())
    return World(rooms, tuple(doors), "corridor")
