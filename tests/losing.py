"""Exchanges that lose the ghosts of one message, to see that it is noticed."""

from backsweep.comm import HaloExchange

prepared = HaloExchange.prepared


def losing(is_lost):
    """What `HaloExchange.prepared` is replaced by.

    After each exchange of which `is_lost(exchange)` the ghosts of the first message that came, or
    without any those of the first periodic image, are what they were before.
    """

    def replaced(self, arrays):
        made, before = prepared(self, arrays), []
        start, finish = made.start, made.finish
        lost = [(p.field, p.where) for m in self._incoming[:1] for p in m.pieces]
        lost = lost or [(i.field, i.ghost) for i in self._images[:1]]

        def remember():
            before[:] = [arrays[field][where].copy() for field, where in lost]
            start()

        def lose():
            finish()
            if is_lost(self):
                for (field, where), cells in zip(lost, before, strict=True):
                    arrays[field][where] = cells

        made.start, made.finish = remember, lose
        return made

    return replaced
