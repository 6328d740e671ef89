from tests.process import process

# A large picture comes and goes first; then fifty of 4 MiB come, each with something smaller after it that stays, and go.
COME_AND_GO = """
import app, psutil
def rss():
    return psutil.Process().memory_info().rss / 2**20
def come_and_go(_):
    large = b"." * 2**24
    del large
    before = rss()
    pictures, stays = [], []
    for _ in range(50):
        pictures.append(b"." * 2**22)
        stays.append(bytearray(2**16))
    assert rss() - before > 150
    del pictures
    print(rss() - before, flush=True)
app._serve = come_and_go
"""


def _kept_mib(then: str) -> float:
    out, err = process(COME_AND_GO + then).communicate()
    assert not err
    return float(out)


def test_memory_of_pictures_goes_back_to_the_system_though_what_stays_lies_between_them() -> None:
    assert _kept_mib("app.main()") < 10
    assert _kept_mib("come_and_go(None)") > 100, "the C library does so by itself now: ui/memory.py is not needed any more"
