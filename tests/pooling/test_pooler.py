"""The transformer behaves as scikit-learn expects of one."""

import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

from toolkit.pooling import FeatureName, SequencePooler


class RowPooler(SequencePooler):
    """Says that it takes tables, which it does: a row is a sequence without a time axis."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        return tags


WORDS = "says the same in its own words, with the sequence's number and the modality"
UNCHECKED = "fit learns the width of the first sequence and reads no other"
APART = {
    "check_n_features_in": "sequences have frames and dimensions; n_dims_ is their width",
    "check_n_features_in_after_fitting": "sequences have frames and dimensions",
    "check_transformer_preserve_dtypes": "features are float32 whatever the frames are",
    "check_dtype_object": "frames of objects are refused, numbers in them too",
    "check_complex_data": UNCHECKED,
    "check_estimators_nan_inf": UNCHECKED,
    "check_estimators_empty_data_messages": WORDS,
    "check_estimator_sparse_array": WORDS,
    "check_estimator_sparse_matrix": WORDS,
    "check_fit2d_predict1d": WORDS,
    "check_transformer_data_not_an_array": "sequences must have a length",
}


@parametrize_with_checks([RowPooler("audio")], expected_failed_checks=lambda _: APART)
def test_scikit_learn_finds_nothing_but_what_sequences_are(estimator, check):
    check(estimator)


@pytest.fixture
def sequences():
    rng = np.random.default_rng(0)
    return [rng.normal(size=(length, 4)) for length in (3, 1, 8)]


def test_width_is_fixed_whatever_the_length(sequences):
    pooler = SequencePooler("acoustic", statistics=("mean", "max", "p90"))

    assert pooler.fit_transform(sequences).shape == (3, 12)


def test_a_clone_and_a_pickle_pool_the_same(sequences):
    pooler = SequencePooler("acoustic", statistics="basic").fit(sequences)

    rows = pooler.transform(sequences)

    assert_array_equal(clone(pooler).fit_transform(sequences), rows)
    assert_array_equal(pickle.loads(pickle.dumps(pooler)).transform(sequences), rows)


def test_names_come_with_pandas_output(sequences):
    pooler = SequencePooler("acoustic", statistics=("mean", "std")).set_output(
        transform="pandas"
    )

    table = pooler.fit_transform(sequences)

    assert isinstance(table, pd.DataFrame)
    assert list(table.columns[[0, 7]]) == ["acoustic__mean__0000", "acoustic__std__0003"]


def test_a_frame_of_sequences_is_early_fusion(sequences):
    frame = pd.DataFrame({"audio": pd.Series(sequences), "video": pd.Series(sequences[::-1])})
    modalities = [(m, SequencePooler(m, statistics="minimal"), m) for m in frame]

    fused = ColumnTransformer(modalities, verbose_feature_names_out=False).fit(frame)

    assert fused.transform(frame).shape == (3, 8)
    assert fused.get_feature_names_out()[4] == "video__mean__0000"


@pytest.mark.parametrize("missing", [None, np.nan], ids=["None", "NaN"])
@pytest.mark.parametrize("first", [0, 1])
def test_a_missing_cell_is_a_row_of_missing_values(sequences, missing, first):
    given = [*sequences[:first], missing, *sequences[first:]]
    pooler = SequencePooler(statistics="basic")

    rows = pooler.fit_transform(pd.Series(given, dtype=object))

    assert np.isnan(rows[first]).all()
    kept = np.delete(rows, first, axis=0)
    assert_array_equal(kept, SequencePooler(statistics="basic").fit_transform(sequences))
    assert pooler.get_feature_names_out()[0] == "sequence__mean__0000"


def test_paths_are_read(sequences, tmp_path):
    paths = [tmp_path / f"{i}.npy" for i in range(3)]
    for path, sequence in zip(paths, sequences, strict=True):
        np.save(path, sequence)
    expected = SequencePooler().fit_transform(sequences)

    for given in (
        paths,
        [str(path) for path in paths],
        pd.DataFrame({"file": map(str, paths)}),
    ):
        assert_array_equal(SequencePooler().fit_transform(given), expected)
    with pytest.raises(ValueError, match=r"Sequence 1 of modality 'face': .*gone\.npy"):
        SequencePooler("face").fit(paths).transform([paths[0], tmp_path / "gone.npy"])


def test_one_column_of_a_table_is_pooled_and_two_are_refused(sequences):
    frame = pd.DataFrame({"audio": pd.Series([*sequences, None]), "speaker": list("abab")})
    by_list = ColumnTransformer([("audio", SequencePooler("audio"), ["audio"])])
    by_name = ColumnTransformer([("audio", SequencePooler("audio"), "audio")])

    rows = by_list.fit_transform(frame)

    assert_array_equal(rows, by_name.fit_transform(frame))
    assert np.isnan(rows).all(axis=1).tolist() == [False, False, False, True]
    with pytest.raises(ValueError, match="X has 2 columns; expected one column of sequences"):
        SequencePooler().fit(frame)


def test_a_column_without_any_sequence_is_refused():
    with pytest.raises(ValueError, match="All 2 sequences of modality 'audio' are missing"):
        SequencePooler("audio").fit([None, None])


@pytest.mark.parametrize("shape", [(0, 4), (3, 5), (4,)], ids=["empty", "wide", "flat"])
def test_a_bad_sequence_is_named(sequences, shape):
    pooler = SequencePooler("visual").fit(sequences)

    with pytest.raises(ValueError, match=r"[Ss]equence 1 of modality 'visual'"):
        pooler.transform([sequences[0], np.zeros(shape)])


def test_a_name_reads_back():
    name = FeatureName("left_hand", "p90", 412)

    assert str(name) == "left_hand__p90__0412"
    assert FeatureName.parse(str(name)) == name


@pytest.mark.parametrize("text", ["visual", "visual__p90", "visual__p90__x", "__p90__0001"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(ValueError, match="name"):
        FeatureName.parse(text)
