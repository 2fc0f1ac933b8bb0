"""Test-time augmentation: how often the networks look at an image."""

NO_TTA, FLIP = "none", "flip"
TTA = (NO_TTA, FLIP)
LOOKS = {
    NO_TTA: "one",
    FLIP: "two, as it is and mirrored left to right; the logit is the mean, for twice the time",
}
