"""What trainings cost, from a measured speed."""

from tumorbatch.train.config import Config, Schedule
from tumorbatch.workflows.cost import Cost, Speed, probed, recorded, training


def test_costs_add_up_and_the_worst_moment_counts_once() -> None:
    total = Cost(60, 120, 10_000_000, 5_000_000) + Cost(61, 61, 1, 7_000_000)
    assert total == Cost(121, 181, 10_000_001, 7_000_000)
    assert total.text() == ("about 3 minutes (at most 4), 11 MB of disk, and 7 MB more while it works")
    assert Cost(1, 1, 0, 0).text().startswith("about 1 minute, 1 MB of disk")


def test_a_training_costs_what_its_speed_says() -> None:
    config = Config("resnet50", Schedule(epochs=10, finetune_epochs=20))
    speed = Speed(images_per_second=50.0, epochs=12, source="")
    found = training(speed, config, images=1000, weights=1_000_000)
    assert (found.seconds, found.seconds_at_most) == (12 * 20, 30 * 20)
    assert (found.bytes, found.bytes_while_working) == (4_000_000, 16_000_000)
    more = training(Speed(50.0, 99, ""), config, 1000, 1)
    assert more.seconds == more.seconds_at_most  # no more epochs than are allowed


def test_a_training_too_short_to_time_has_no_speed() -> None:
    assert recorded({"images_per_second": 0.0, "epochs": 1}) is None
    assert recorded({}) is None
    known = recorded({"images_per_second": 80.5, "epochs": 7})
    assert known is not None
    assert (known.images_per_second, known.epochs) == (80.5, 7)


def test_the_probe_times_real_steps_of_every_phase() -> None:
    config = Config("cnn1", Schedule(epochs=9, batch_size=4), device="cpu")
    found = probed(config, 32)
    assert found.epochs == 9
    assert 1 < found.images_per_second < 1e6
