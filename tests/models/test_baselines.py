import numpy as np
import pytest

from toolkit.models import class_priors


def test_shares_count_every_class_of_the_study():
    assert class_priors([3, 1, 1, 3], n_classes=5).tolist() == [0, 0.5, 0, 0.5, 0]


def test_a_tie_of_shares_goes_to_the_lowest_class():
    assert class_priors([2, 1, 2, 1], n_classes=3).argmax() == 1


def test_no_rows_have_no_shares():
    with pytest.raises(ValueError, match=r"class shares of no rows"):
        class_priors(np.array([], dtype=int), n_classes=2)


def test_shares_refuse_labels_outside_the_classes():
    with pytest.raises(ValueError, match=r"row 1 is 2; expected 0 to 1"):
        class_priors([0, 2], n_classes=2)
