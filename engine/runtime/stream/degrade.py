"""How many stages a stream may try: fewer when faults repeat, more again when all has been well for long."""

PATIENCE = 16  # how many times `recover` a stream that keeps relapsing waits at most before it tries again


class Budget:
    """A number of stages between 0 (pass every frame through) and `full`, with hysteresis.

    `after` faults in a row take stages away; `recover` good frames in a row give one back, or, at 0, let one frame try.
    A try that fails doubles the wait before the next one.
    """

    def __init__(self, full: int, after: int = 5, recover: int = 60) -> None:
        self.full, self.after, self.recover = full, after, recover
        self.stages = full
        self._wait = recover
        self._faults = self._good = self._reached = 0
        self._trying = False

    @property
    def degraded(self) -> bool:
        return self.stages < self.full

    def succeeded(self) -> None:
        self._faults = self._reached = 0
        self._good += 1
        if self._good < self._wait:
            return
        self._good = 0
        if self.degraded:
            self.stages += 1
            self._trying = True
        else:
            self._wait, self._trying = self.recover, False

    def failed(self, reached: int) -> None:
        """A fault after `reached` stages were finished in time; the most in a row of faults can be counted on."""
        self._good = 0
        self._faults += 1
        self._reached = max(self._reached, reached)
        if self._faults < self.after:
            return
        self.stages = max(min(self._reached, self.stages - 1), 0)
        if self._trying:
            self._wait = min(2 * self._wait, PATIENCE * self.recover)
        self._faults = self._reached = 0
        self._trying = False

    def rested(self) -> None:
        """A frame went by without a try, because there is no budget."""
        self._good += 1
        if self._good >= self._wait:
            self.stages = 1
            self._good, self._trying = 0, True
            self._faults = self.after - 1  # one more fault is enough
