"""How many stages a stream may try: fewer when faults repeat, more again when all has been well for long."""


class Budget:
    """A number of stages between 0 (pass every frame through) and `full`, with hysteresis.

    `after` faults in a row take stages away; `recover` good frames in a row give one back, or, at 0, let one frame try.
    """

    def __init__(self, full: int, after: int = 5, recover: int = 60) -> None:
        self.full, self.after, self.recover = full, after, recover
        self.stages = full
        self._faults = self._good = 0

    @property
    def degraded(self) -> bool:
        return self.stages < self.full

    def succeeded(self) -> None:
        self._faults = 0
        self._good += 1
        if self.degraded and self._good >= self.recover:
            self.stages += 1
            self._good = 0

    def failed(self, reached: int) -> None:
        """A fault after `reached` stages were finished in time; what was reached is what can be counted on."""
        self._good = 0
        self._faults += 1
        if self._faults >= self.after and self.stages > 0:
            self.stages = min(max(reached, 0), self.stages - 1)
            self._faults = 0

    def rested(self) -> None:
        """A frame went by without a try, because there is no budget: every `recover` of them one is tried again."""
        self._good += 1
        if self._good >= self.recover:
            self.stages = 1
            self._good = 0
            self._faults = self.after - 1  # one more fault is enough
