"""Fits each head's calibration and measures it by cross-fitting: no image judges numbers fitted on it.

The images are cut into folds (blocks of time for recordings). What is reported as "after" of a fold comes
from a fit on the other folds; what goes into the bundle comes from a fit on all of them. It goes there only
where "after" is better than the bundle as it is, by more than noise (`judging`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from numpy.typing import NDArray

from robot_vision.bundle.bundle import GRAPH, ModelBundle
from robot_vision.calibration.folds import blocks_of, folds_of, resampler_of, times_of, units_of
from robot_vision.calibration.old_graphs import GraphEditor
from robot_vision.contract import registry
from robot_vision.contract.calibration import FOLDS, Fit, Fitted, Fitter, Options
from robot_vision.contract.head import Head
from robot_vision.contract.spec import NetworkSpec
from robot_vision.contract.training import Dense
from robot_vision.datasets.sample import Sample, true_values
from robot_vision.errors import BundleError
from robot_vision.images.input import InputSpec
from robot_vision.images.window import Window
from robot_vision.settings.declared import parse_options


@dataclass
class Calibration:
    """All that was fitted.

    Attributes:
        spec: of the calibrated bundle.
        heads: part's word to what was fitted.
        owners: part's word to the head.
        notes: a line each.
    """

    spec: NetworkSpec
    heads: dict[str, Fitted] = field(default_factory=dict)
    owners: dict[str, Head[Any, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def left(self) -> dict[str, str]:
        """Why which parts are left as they are."""
        return {name: part.left for name, part in self.heads.items() if part.left}

    @property
    def written(self) -> list[tuple[Head[Any, Any], Fitted]]:
        """The parts that get new numbers."""
        return [(self.owners[n], part) for n, part in self.heads.items() if not part.left]

    @property
    def constants(self) -> dict[str, dict[str, NDArray[Any]]]:
        """New values of constants, by head."""
        found: dict[str, dict[str, NDArray[Any]]] = {}
        for head, part in self.written:
            found.setdefault(head.name, {}).update(part.constants)
        return found

    def merged(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what `bundle.yaml` keeps, by part, with what it had before that still holds."""
        new = {name: part.record() for name, part in self.heads.items() if not part.left}
        undone = {head.key(word) for head, part in self.written for word in part.undoes}
        return {**{k: v for k, v in before.items() if k not in undone}, **new}


@dataclass
class FitMaterial:
    """Samples and what the bundle says of them.

    Attributes:
        samples: (N), those that could be read.
        outputs: of `predict`.
    """

    samples: Sequence[Sample]
    outputs: Mapping[str, NDArray[Any]]

    def truth(self, word: str) -> list[Any]:
        """Returns what is true of each sample (N); None where nobody knows."""
        return [sample.of(word) for sample in self.samples]


class _Maps(Sequence[Any]):
    """What is true of every pixel of each sample, (h, w) as its head learns it; read when it is asked for."""

    def __init__(self, samples: Sequence[Sample], word: str, dense: Dense, size: InputSpec) -> None:
        self._samples, self._word, self._dense, self._input = samples, word, dense, size

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, i: Any) -> Any:
        truth, dense = self._samples[i].of(self._word), self._dense
        if truth is None:
            return None
        values = true_values(truth, dense.dtype, dense.none)
        return Window.of(values.shape, self._input).truth(values, dense.size, dense.none)


def _truth(
    material: FitMaterial, fitter: Fitter[Any], part: str, spec: Any, size: InputSpec
) -> Any:
    """Returns what `Fit.truth` holds: of what is known of every pixel, maps."""
    word = fitter.truth(part)
    if not word.startswith("image:"):
        return material.truth(word)
    return _Maps(material.samples, word, fitter.head.trainer().dense(spec)[word], size)


def all_fitters() -> list[Fitter[Any]]:
    """Returns those of all heads that there are."""
    return [fitter for kind in registry.names() if (fitter := registry.head(kind).fitter())]


def all_parts() -> tuple[str, ...]:
    """Returns the words of all heads that there are, under their default names."""
    return tuple(part for fitter in all_fitters() for part in fitter.parts)


def parts_of(spec: NetworkSpec) -> Iterator[tuple[Fitter[Any], Any, str, str]]:
    """Yields fitter, settings, part and its word of `--heads`."""
    for head, own in spec.bound:
        fitter = head.fitter()
        if fitter is not None:
            for part in fitter.parts:
                yield fitter, own, part, head.key(part)


def options_for(fitter: Fitter[Any], options: Options) -> Any:
    """Returns a fitter's own options."""
    names = fitter.Options.__dataclass_fields__
    given = {name: value for name, value in options.given.items() if name in names}
    return parse_options(fitter.Options, fitter.head.name, given)


class _Found(dict[str, NDArray[Any]]):
    """What was found in a graph: constants, or values for the images."""

    def __missing__(self, word: str) -> NDArray[Any]:
        raise BundleError(
            f"{GRAPH} lacks {word}, as converted graphs may: calibrate the bundle that it was made from"
        )


def fit(
    bundle: ModelBundle, material: FitMaterial, reference: FitMaterial | None, options: Options
) -> Calibration:
    """Fits what the options ask for.

    Args:
        bundle: as it is.
        material: held out.
        reference: other images, that may have been trained on, to compare with. None takes other folds of
            `material` instead, and looks places up in it without neighbours in time.
        options: what and how.

    Raises:
        ConfigError: too few images; the message says how many are needed.
    """
    found = Calibration(bundle.spec)
    shared: Fit[Any] = Fit(
        spec=None,
        outputs=_Found(material.outputs),
        truth=(),
        folds=folds_of(material.samples, FOLDS, options.seed),
        units=units_of(material.samples, FOLDS),
        blocks=blocks_of(material.samples),
        constants={},
        resampler=resampler_of(material.samples, options.settings),
        times=partial(times_of, material.samples),
        model=bundle.name,
        seed=options.seed,
        settings=options.settings,
    )
    graphs: list[GraphEditor] = []  # one, where a head is fitted
    for fitter, was, part, word in parts_of(bundle.spec):
        if word not in options.parts:
            continue
        graphs = graphs or [GraphEditor(bundle.graph, str(bundle.path / GRAPH))]
        head, own = fitter.head, options_for(fitter, options)
        given = replace(
            shared,
            spec=found.spec.heads[head.name],
            was=was,
            truth=_truth(material, fitter, part, was, bundle.spec.input),
            constants=_Found(graphs[0].constants(head.name)),
            record=bundle.material[head.name].calibration.get(part) or {},
            old=graphs[0].is_old(head.name),
        )
        if reference is not None and fitter.compares(part, own):
            known = _truth(reference, fitter, part, was, bundle.spec.input)
            given.reference = _Found(reference.outputs), known
        found.notes += [
            n for n in fitter.notes(was, bundle.name, given.truth) if n not in found.notes
        ]
        fitted = fitter.fit(part, given, own)
        found.heads[word], found.owners[word] = fitted, head
        if not fitted.left:
            changed: Any = replace(given.spec, **fitted.spec)
            found.spec = found.spec.with_heads(**{head.name: changed})
    for head, fitted in found.written:
        undone = {head.key(word): note for word, note in fitted.undoes.items()}
        new = [word for word in undone if word in found.heads and not found.left.get(word)]
        found.notes += [note for word, note in undone.items() if word not in new]
    return found


def calibrated_graph(bundle: ModelBundle, found: Calibration) -> bytes:
    """Returns the graph with the new numbers in it, to the byte the old one where there are none."""
    changes = [(head, part) for head, part in found.written if part.constants or part.edit]
    if not changes:
        return bundle.graph
    editor = GraphEditor(bundle.graph, str(bundle.path / GRAPH))
    for head, part in changes:
        for word, value in part.constants.items():
            editor.set_constant(head.name, word, value)
        if part.edit is not None:
            part.edit(editor)
    return editor.to_bytes()
