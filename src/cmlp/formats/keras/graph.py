"""How the layers of a Keras model follow one another: one chain, or several that are averaged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from reprlib import repr as short
from typing import Any

from cmlp.formats.chain import ConversionError

MODELS = ("Sequential", "Functional", "Model")
"""Classes that hold layers."""

LONGEST = 8
"""Layers of all chains that are averaged, together, as a multiple of those of the model."""


def check_chain(layers: Sequence[dict[str, Any]], outputs: Any) -> None:
    """Check that each layer of a functional model takes what the one before it gives.

    Parameters
    ----------
    layers : sequence of dict
        Descriptions of layers, in order.
    outputs : object
        What the description has for the layers of its outputs.

    Raises
    ------
    ConversionError
        Naming the first layer that takes something else.
    """
    before: str | None = None
    for number, layer in enumerate(layers, 1):
        nodes = layer.get("inbound_nodes")
        sources = list(_tensors(nodes, 0))
        if before is None:
            fits = not sources
        else:
            fits = sources == [before] and isinstance(nodes, list) and len(nodes) == 1
        name = name_of(layer)
        if not fits:
            raise ConversionError(
                f"layer {number} ({short(layer.get('class_name'))}, {short(name)}) takes "
                f"{short(sources)}: only a model whose layers follow one another, from one input "
                "to one output, or whose last layer is the Average of such, has a counterpart in "
                "cmlp"
            )
        before = name
    found = [each for each in _names_in(outputs) if isinstance(each, str)]
    if found != [before]:
        raise ConversionError(
            f"the model has the outputs {short(found)}: only one of the last layer has a "
            "counterpart in cmlp"
        )


def chains_of_mean(layers: Sequence[dict[str, Any]], outputs: Any) -> list[list[str]]:
    """Return the names of the layers of each chain that an ``Average`` at a model's end takes.

    Parameters
    ----------
    layers, outputs
        As of :func:`check_chain`.

    Returns
    -------
    list of list of str
        Empty, if the last layer is no ``Average``.

    Raises
    ------
    ConversionError
        If what it takes are not chains of their own: they may share layers at their beginning,
        but no ``Dense`` one. So the networks together hold no more than the model, whatever a
        file's description has.
    """
    if not layers or layers[-1].get("class_name") != "Average":
        return []
    *rest, last = layers
    by_name = {name_of(layer): layer for layer in rest}
    sources = {name: list(_tensors(by_name[name].get("inbound_nodes"), 0)) for name in by_name}
    ends = list(_tensors(last.get("inbound_nodes"), 0))
    found = [each for each in _names_in(outputs) if isinstance(each, str)]
    if found != [name_of(last)] or len(by_name) < len(rest) or not ends:
        raise ConversionError(
            f"the model has the outputs {short(found)}, or a name twice: only one output, of the "
            "Average at its end, has a counterpart in cmlp"
        )
    chains: list[list[str]] = []
    taken: set[str] = set()
    for end in ends:
        chain = _chain_to(end, sources, LONGEST * len(layers) - sum(map(len, chains)))
        check_chain([by_name[name] for name in by_name if name in set(chain)], [end, 0, 0])
        dense = {name for name in chain if by_name[name].get("class_name") in ("Dense", *MODELS)}
        if not dense or not dense.isdisjoint(taken):
            raise ConversionError(
                f"{short(end)}, which the Average at the end takes, has no Dense layer of its own"
            )
        if chains and chain[-1] != chains[0][-1]:
            raise ConversionError("the networks whose Average is taken have different inputs")
        taken |= dense
        chains.append(chain)
    return chains


def _chain_to(end: str, sources: dict[str, list[Any]], longest: int) -> list[str]:
    """Return the names of the layers that lead to one, the last first."""
    chain: list[str] = []
    here: Any = end
    while here in sources and len(chain) <= longest:
        chain.append(here)
        if len(sources[here]) != 1:
            return chain
        (here,) = sources[here]
    raise ConversionError(
        f"{short(end)}, which the Average at the end takes, is no chain of layers"
    )


def name_of(layer: dict[str, Any]) -> Any:
    """Return the name of a layer from its description."""
    return layer.get("name", layer["config"].get("name"))


def _names_in(listed: Any) -> Iterator[Any]:
    """Yield the names of layers in ``['name', 0, 0]`` or a list of such."""
    if isinstance(listed, list):
        if listed and isinstance(listed[0], str):
            yield listed[0]
        else:
            for each in listed:
                yield from _names_in(each) if isinstance(each, list) else ()


def _tensors(node: Any, depth: int) -> Iterator[Any]:
    """Yield the layers whose outputs a node takes."""
    if depth > 8:
        raise ConversionError("the description of a model is not what Keras writes")
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            inner = node.get("config")
            history = inner.get("keras_history") if isinstance(inner, dict) else None
            yield history[0] if isinstance(history, list) and history else None
            return
        for value in node.values():
            yield from _tensors(value, depth + 1)
    elif isinstance(node, list):
        if len(node) >= 3 and isinstance(node[0], str) and isinstance(node[1], int):
            yield node[0]  # of Keras 2
            return
        for value in node:
            yield from _tensors(value, depth + 1)
