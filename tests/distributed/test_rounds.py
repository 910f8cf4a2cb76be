"""Rounds: what fails in the middle of one is undone, and training continues from there."""

import numpy as np
import pytest
from ranks import Faulty, Stored, rows, together, until_the_end

import cmlp
from cmlp.distributed import RingBroken, ThreadRing
from cmlp.distributed.rank import Rank, Settings
from cmlp.training.fit import Options
from cmlp.training.recipe import Recipe

X, y, weights = rows()
OPTIONS = {
    "epochs": 2, "batch_size": 60, "shuffle": True, "validation_fraction": 0.2, "patience": 5,
    "schedule": "cosine", "dropout_schedule": None, "weight_decay_schedule": None, "callbacks": (),
    "max_time": None, "n_threads": 1, "verbose": 0,
}  # fmt: skip


def made(sync_every=1, memory=0, **options):
    """Return a rank with a network of its own, like every other rank's, on arrays or in windows."""
    net = cmlp.Network([5, 8, 6, 1], "tanh", seed=1, dtype="float64")
    recipe = Recipe(solver="adam", learning_rate=0.01, dropout=0.2, ema=0.9, clip_norm=1.0)
    settings = Settings(recipe, Options(**OPTIONS | options), 8, sync_every, memory)
    source = Stored(*rows(3000)) if memory else net.encode_rows(X, y, weights)
    return Rank(net, source, settings)


def finished(ranks, ring=ThreadRing.make, wrapped=lambda comm: comm):
    """Train on some ranks until all have ended; return what each has done, or its error."""
    comms = [wrapped(comm) for comm in ring(len(ranks))]
    return together(comms, lambda comm: until_the_end(ranks[comm.rank], comm))


def compared(ranks, undisturbed, relative):
    """Compare all that a training has left: weights, moments, counts, record, position."""
    for rank in ranks:
        net, other = rank.net, undisturbed.net
        for mine, theirs in ((net.params, other.params), (net.moments, other.moments)):
            scale = np.abs(theirs).max()
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=relative * scale)
        assert (net.steps, net.averaged) == (other.steps, other.averaged)
        assert rank.position[:2] == undisturbed.position[:2] == (2, 0)
        for key in ("epoch", "loss", "val_loss", "val_score", "learning_rate"):
            np.testing.assert_allclose(net.history[key], other.history[key], rtol=relative)
        assert net.rng.bit_generator.state == other.rng.bit_generator.state


@pytest.mark.parametrize(
    "after, gone, sync_every",
    [(False, False, 1), (True, True, 1), (False, True, (1, 2)), (True, False, (1, 2))],
)
def test_a_fault_at_any_call_changes_nothing(after, gone, sync_every):
    """At every call of every rank, which is gone then, or of which only the connection is."""
    n = 3
    undisturbed, counted = [made(sync_every) for _ in range(n)], []

    def counting(comm):
        counted.append(Faulty(comm, 0))
        return counted[-1]

    whole = finished(undisturbed, wrapped=counting)
    assert [len(rounds) for rounds in whole] == [2] * n
    last = -counted[0].left
    assert last == 1 + 2 * (3 + 2)  # meeting; of each epoch steps, validation, agreement
    for victim in range(n):
        for call in range(1, last + 1):
            ranks = [made(sync_every) for _ in range(n)]
            found = finished(
                ranks,
                wrapped=lambda comm, victim=victim, call=call: (
                    Faulty(comm, call, after) if comm.rank == victim else comm
                ),
            )
            assert isinstance(found[victim], RingBroken), (victim, call, found)
            for rank, other in enumerate(found):  # after the last call, the others have finished
                done = after and call == last and rank != victim
                assert isinstance(other, list if done else RingBroken), (rank, call, other)
            survivors = [rank for i, rank in enumerate(ranks) if not (gone and i == victim)]
            finished(survivors)
            if sync_every == 1 or not gone:
                compared(survivors, undisturbed[0], 1e-9 if gone else 0)
            else:  # other ranks take other steps of their own
                assert [rank.position[:2] for rank in survivors] == [(2, 0)] * 2
                assert {rank.net.steps for rank in survivors} == {undisturbed[0].net.steps}


def test_windows_are_read_again_from_where_a_round_began():
    """In another process, or in the same one, whose thread has read on."""
    given = {"memory": 200_000, "batch_size": 200}
    whole = [made(**given) for _ in range(2)]
    finished(whole)
    assert not whole[0].feed.fits
    for call in (2, 5, 13, 20):
        ranks = [made(**given) for _ in range(2)]
        finished(ranks, wrapped=lambda comm, call=call: Faulty(comm, call))
        finished(ranks)
        compared(ranks, whole[0], 0)
        ranks = [made(**given) for _ in range(3)]
        finished(ranks, wrapped=lambda comm, call=call: Faulty(comm, call))
        finished(ranks[1:])
        compared(ranks[1:], whole[0], 1e-9)


def test_short_rounds_are_the_same_training():
    whole, parts = ([made() for _ in range(2)] for _ in range(2))
    finished(whole)

    def train(comm):
        return until_the_end(parts[comm.rank], comm, seconds=0)

    rounds = together(ThreadRing.make(2), train)[0]
    assert len(rounds) == 2 * 3  # of a step each
    compared(parts, whole[0], 0)


def test_a_rank_that_comes_later_gets_the_state():
    old, whole = [made(epochs=2) for _ in range(2)], [made() for _ in range(3)]
    finished(whole)
    together(ThreadRing.make(2), lambda comm: old[comm.rank].round(comm))
    new = made()
    new.net.params[:] = 7
    ranks = [new, *old]
    assert [rank.position[:2] for rank in ranks] == [(0, 0), (1, 0), (1, 0)]
    finished(ranks)
    compared(ranks, whole[0], 1e-9)
