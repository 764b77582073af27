"""The named data sets, from their official layouts: made up here, real where the files lie beside the checkout."""

import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pytest

from holdfast.data import load, partition
from holdfast.data.cifar import ARCHIVE_MD5
from holdfast.data.loan import LABELS, OPENINTRO_COLUMNS
from holdfast.types import DataError
from tests.conftest import shared

KAGGLE_HEADER = """
id member_id loan_amnt funded_amnt funded_amnt_inv term int_rate installment grade sub_grade emp_title emp_length
home_ownership annual_inc verification_status issue_d loan_status pymnt_plan url desc purpose title zip_code
addr_state dti delinq_2yrs earliest_cr_line inq_last_6mths mths_since_last_delinq mths_since_last_record open_acc
pub_rec revol_bal revol_util total_acc initial_list_status out_prncp out_prncp_inv total_pymnt total_pymnt_inv
total_rec_prncp total_rec_int total_rec_late_fee recoveries collection_recovery_fee last_pymnt_d last_pymnt_amnt
next_pymnt_d last_credit_pull_d collections_12_mths_ex_med mths_since_last_major_derog policy_code application_type
annual_inc_joint dti_joint verification_status_joint acc_now_delinq tot_coll_amt tot_cur_bal open_acc_6m open_act_il
open_il_12m open_il_24m mths_since_rcnt_il total_bal_il il_util open_rv_12m open_rv_24m max_bal_bc all_util
total_rev_hi_lim inq_fi total_cu_tl inq_last_12m acc_open_past_24mths avg_cur_bal bc_open_to_buy bc_util
chargeoff_within_12_mths delinq_amnt mo_sin_old_il_acct mo_sin_old_rev_tl_op mo_sin_rcnt_rev_tl_op mo_sin_rcnt_tl
mort_acc mths_since_recent_bc mths_since_recent_bc_dlq mths_since_recent_inq mths_since_recent_revol_delinq
num_accts_ever_120_pd num_actv_bc_tl num_actv_rev_tl num_bc_sats num_bc_tl num_il_tl num_op_rev_tl num_rev_accts
num_rev_tl_bal_gt_0 num_sats num_tl_120dpd_2m num_tl_30dpd num_tl_90g_dpd_24m num_tl_op_past_12m pct_tl_nvr_dlq
percent_bc_gt_75 pub_rec_bankruptcies tax_liens tot_hi_cred_lim total_bal_ex_mort total_bc_limit
total_il_high_credit_limit revol_bal_joint sec_app_earliest_cr_line sec_app_inq_last_6mths sec_app_mort_acc
sec_app_open_acc sec_app_revol_util sec_app_open_act_il sec_app_num_rev_accts sec_app_chargeoff_within_12_mths
sec_app_collections_12_mths_ex_med sec_app_mths_since_last_major_derog hardship_flag hardship_type hardship_reason
hardship_status deferral_term hardship_amount hardship_start_date hardship_end_date payment_plan_start_date
hardship_length hardship_dpd hardship_loan_status orig_projected_additional_accrued_interest
hardship_payoff_balance_amount hardship_last_payment_amount disbursement_method debt_settlement_flag
debt_settlement_flag_date settlement_status settlement_date settlement_amount settlement_percentage settlement_term
"""
KAGGLE_COLUMNS = KAGGLE_HEADER.split()


def write_har(folder, *, rows=40, users=4):
    rng = np.random.default_rng(0)
    everything = {}
    for part, offset in (("train", 0), ("test", 2)):
        (folder / part).mkdir(parents=True)
        x = rng.uniform(-1, 1, (rows, 561)).round(6)
        y = rng.integers(1, 7, rows)
        subject = offset + 1 + np.arange(rows) % (users // 2)
        np.savetxt(folder / part / f"X_{part}.txt", x, fmt="%17.7e")
        np.savetxt(folder / part / f"y_{part}.txt", y, fmt="%d")
        np.savetxt(folder / part / f"subject_{part}.txt", subject, fmt="%d")
        everything[part] = (x, y, subject)
    return everything


def test_har_pools_both_files_and_splits_each_user(tmp_path):
    parts = write_har(tmp_path / "har" / "UCI HAR Dataset")
    data = load("har", data_dir=tmp_path)
    assert data.user_names == ("1", "2", "3", "4")
    assert np.bincount(data.users_train).tolist() == [15, 15, 15, 15]
    assert np.bincount(data.users_test).tolist() == [5, 5, 5, 5]
    assert data.label_names[0] == "WALKING"
    assert partition("user", data.y_train, seed=0, users=data.users_train).sizes.tolist() == [15, 15, 15, 15]
    where = {
        tuple(np.float32(row[:3])): (label - 1, user - 1)
        for x, y, subject in parts.values()
        for row, label, user in zip(x, y, subject, strict=True)
    }
    for x, y, users in ((data.x_train, data.y_train, data.users_train), (data.x_test, data.y_test, data.users_test)):
        assert [where[tuple(row[:3])] for row in x] == list(zip(y, users, strict=True))


def test_har_reads_the_archive_like_the_folder_and_names_what_is_wrong(tmp_path):
    root = tmp_path / "plain" / "UCI HAR Dataset"
    write_har(root)
    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / "UCI HAR Dataset.zip", "w") as archive:
        for path in root.rglob("*.txt"):
            archive.write(path, path.relative_to(tmp_path / "plain"))
    whole = load("har", data_dir=tmp_path / "plain")
    assert load("har", data_dir=tmp_path / "zipped").fingerprint() == whole.fingerprint()
    assert load(tmp_path / "plain").fingerprint() == whole.fingerprint()
    (tmp_path / "nested").mkdir()
    for name in ("human+activity+recognition+using+smartphones.zip", "UCI HAR Dataset.zip"):
        with zipfile.ZipFile(tmp_path / "nested" / name, "w") as outer:
            outer.write(tmp_path / "zipped" / "UCI HAR Dataset.zip", "UCI HAR Dataset.zip")
        assert load("har", data_dir=tmp_path / "nested").fingerprint() == whole.fingerprint()
    archive = tmp_path / "zipped" / "UCI HAR Dataset.zip"
    archive.write_bytes(archive.read_bytes()[:1000])
    with pytest.raises(DataError, match="cannot be read"):
        load("har", data_dir=tmp_path / "zipped")
    subjects = root / "train" / "subject_train.txt"
    subjects.write_text("1\n2\n")
    with pytest.raises(DataError, match="40 rows of features, 40 labels and 2 subjects"):
        load("har", data_dir=tmp_path / "plain")
    subjects.write_text("one\n")
    with pytest.raises(DataError, match="is damaged"):
        load("har", data_dir=tmp_path / "plain")
    (root / "train" / "X_train.txt").write_text("1 2 3\n")
    with pytest.raises(DataError, match="3 columns where UCI HAR has 561"):
        load("har", data_dir=tmp_path / "plain")


def write_cifar(folder, rows=20):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    batches = {}
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        batches[name] = rng.integers(0, 256, (rows, 3073), dtype=np.uint8)
        batches[name][:, 0] = np.arange(rows) % 10
        (folder / name).write_bytes(batches[name].tobytes())
    return batches


def test_cifar_binary_files_and_archive_give_the_same_pixels(tmp_path):
    batches = write_cifar(tmp_path / "a" / "cifar-10-batches-bin")
    data = load("cifar10", data_dir=tmp_path / "a")
    assert data.x_train.shape == (100, 3, 32, 32)
    third = batches["data_batch_3.bin"]
    np.testing.assert_array_equal(data.y_train[40:60], third[:, 0])
    # Red first, then green, then blue, each row by row: byte 1 + 1024 * channel + 32 * row + column.
    assert data.x_train[40, 2, 5, 7] == np.float32(third[0, 1 + 1024 * 2 + 32 * 5 + 7] / np.float32(255))
    (tmp_path / "b").mkdir()
    with tarfile.open(tmp_path / "b" / "cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "a" / "cifar-10-batches-bin", "cifar-10-batches-bin")
    assert load("cifar10", data_dir=tmp_path / "b").fingerprint() == data.fingerprint()
    assert len(ARCHIVE_MD5) == 32
    (tmp_path / "a" / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(b"\0" * 3072)
    with pytest.raises(DataError, match=r"test_batch\.bin is cut off"):
        load("cifar10", data_dir=tmp_path / "a")
    whole = (tmp_path / "b" / "cifar-10-binary.tar.gz").read_bytes()
    (tmp_path / "b" / "cifar-10-binary.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"damaged|lacks"):
        load("cifar10", data_dir=tmp_path / "b")


def image_table(images, labels):
    from PIL import Image

    cells = []
    for pixels in images:
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, format="PNG")
        cells.append({"bytes": stream.getvalue(), "path": "p.png"})
    return pd.DataFrame({"img": cells, "label": labels})


def test_parquet_of_encoded_images_keeps_pixels(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    for part in ("train", "test"):
        image_table(images, np.arange(10)).to_parquet(tmp_path / f"{part}-00000-of-00001.parquet")
    for data in (load("cifar10", data_dir=tmp_path), load(tmp_path)):
        np.testing.assert_array_equal(np.rint(data.x_train * 255), images.transpose(0, 3, 1, 2))
    assert load("cifar10", data_dir=tmp_path).label_names[3] == "cat"
    grey = image_table(images[:, :, :, 0], np.arange(10) % 2)
    grey.to_parquet(tmp_path / "grey.parquet")
    assert load(tmp_path / "grey.parquet").image_shape == (1, 32, 32)
    grey["img"] = [{"bytes": b"nonsense"} if row == 2 else cell for row, cell in enumerate(grey["img"])]
    grey.to_parquet(tmp_path / "grey.parquet")
    with pytest.raises(DataError, match="image in row 2 cannot be decoded"):
        load(tmp_path / "grey.parquet")


def write_reviews(path, reviews):
    lines = "\n".join(json.dumps({"reviewText": text, "overall": rating}) for text, rating in reviews)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())


REVIEWS = [("Good good book!", 5.0), ("bad", 1.0), ("so-so", 3.0), ("It's fine", 4.0), ("bad, bad", 2.0)] * 10


@pytest.mark.parametrize("name", ["r.json", "r.json.gz"])
def test_reviews_become_token_ids_of_their_words(tmp_path, name):
    write_reviews(tmp_path / name, REVIEWS)
    data = load(tmp_path / name)
    assert data.x_train.dtype == np.int32
    assert data.vocabulary[:4] == ("<padding>", "<unknown>", "bad", "good")  # the most frequent first
    assert set(data.vocabulary[4:]) == {"book", "fine", "it's"}
    assert len(data.y_train) + len(data.y_test) == 40  # rating 3 is left out
    texts = {" ".join(data.vocabulary[i] for i in row if i) for row in data.x_train[data.y_train == 1]}
    assert texts == {"good good book", "it's fine"}
    assert len(data.y_test) == 8
    assert load("reviews", data_dir=tmp_path).fingerprint() == data.fingerprint()


def test_words_of_test_rows_stay_out_of_the_vocabulary(tmp_path):
    write_reviews(tmp_path / "r.json", [(f"word{row}", 5.0 if row % 2 else 1.0) for row in range(40)])
    data = load(tmp_path / "r.json")
    assert len(data.vocabulary) == 2 + len(data.y_train)
    assert (data.x_train > 1).all()
    assert (data.x_test == 1).all()


def test_reviews_take_a_public_vocabulary_where_there_is_one(tmp_path):
    write_reviews(tmp_path / "r.json", [*REVIEWS, ("", 5.0), ("!!!", 1.0), ("word " * 1000, 5.0)])
    (tmp_path / "vocabulary.txt").write_text("fine\nbad\n")
    data = load(tmp_path / "r.json")
    assert data.vocabulary == ("<padding>", "<unknown>", "fine", "bad")
    every = np.concatenate([data.x_train, data.x_test])
    assert every.shape[1] == 256
    assert every.max() == 3
    assert (every[:, 0] != 0).all()  # an empty text is one unknown word, never all padding


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{'reviewText': 'python, not json'}", "line 2 is not JSON"),
        ('{"overall": 5.0}', "line 2 lacks a reviewText"),
        ('{"reviewText": "x", "overall": 9}', "line 2 lacks a reviewText or an overall"),
        ('{"reviewText": "x", "overall": true}', "line 2 lacks"),
        ("[1, 2]", "line 2 lacks"),
        ('{"reviewText": "x", "overall": 5}', "not of both kinds"),
    ],
)
def test_unusable_reviews_are_one_sentence(tmp_path, line, sentence):
    (tmp_path / "r.json").write_text('{"reviewText": "fine", "overall": 5.0}\n' + line)
    with pytest.raises(DataError) as caught:
        load(tmp_path / "r.json")
    assert sentence in str(caught.value)


def kaggle_table(rows=200):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: rng.normal(100, 50, rows).round(2) for name in KAGGLE_COLUMNS})
    table["loan_status"] = rng.choice(LABELS, rows)
    table["addr_state"] = rng.choice(["CA", "NY", "TX"], rows)
    table["grade"] = rng.choice(list("ABCDEFG"), rows)
    table["emp_length"] = "10+ years"
    table.loc[7, "annual_inc"] = 1e8
    table.loc[3:60, "il_util"] = np.nan
    return table


def test_kaggle_loans_have_the_papers_91_features_and_states_as_clients(tmp_path):
    assert len(KAGGLE_COLUMNS) == len(set(KAGGLE_COLUMNS)) == 145
    table = kaggle_table()
    table.to_csv(tmp_path / "loan.csv", index=False)
    data = load("loan", data_dir=tmp_path)
    assert data.x_train.shape[1] == len(data.feature_names) == 91
    assert set(OPENINTRO_COLUMNS) <= set(data.feature_names)
    assert data.n_labels == 9
    assert load(tmp_path / "loan.csv").fingerprint() == load(tmp_path).fingerprint() == data.fingerprint()
    assert data.user_names == ("CA", "NY", "TX")
    assert len(data.y_test) == sum(int(count * 0.2) for count in table["addr_state"].value_counts())
    assert np.allclose(data.x_train[:, data.feature_names.index("loan_amnt")].mean(), 0, atol=1e-6)
    assert np.allclose(data.x_train[:, data.feature_names.index("loan_amnt")].std(), 1, atol=1e-6)
    income = np.concatenate([data.x_train, data.x_test])[:, data.feature_names.index("annual_inc")]
    assert income.max() == 10  # a hundred million, more than ten deviations away
    grade = data.x_train[:, data.feature_names.index("grade")]
    assert len(np.unique(grade)) == 7


def test_unusable_loans_are_one_sentence(tmp_path):
    for column, value, sentence in [
        ("loan_status", "Issued", "loan_status 'Issued' is none of the nine"),
        ("addr_state", None, "column 'addr_state' is empty in 1 rows"),
    ]:
        table = kaggle_table()
        table.loc[5, column] = value
        table.to_csv(tmp_path / "loan.csv", index=False)
        with pytest.raises(DataError, match=sentence):
            load("loan", data_dir=tmp_path)
    kaggle_table().drop(columns="loan_status").to_csv(tmp_path / "loan.csv", index=False)
    with pytest.raises(DataError, match="lacks the columns loan_status"):
        load("loan", data_dir=tmp_path)
    (tmp_path / "loan.csv").write_text("")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        load("loan", data_dir=tmp_path)


def test_real_openintro_loans():
    data = load("loan", data_dir=shared("data/loan"))
    assert len(data.y_train) + len(data.y_test) == 10_000
    assert data.x_train.shape[1] == 46
    assert len(data.user_names) == 50
    assert set(OPENINTRO_COLUMNS.values()) <= set(data.feature_names)
    assert np.bincount(np.concatenate([data.y_train, data.y_test]), minlength=9).tolist() == [
        *(9375, 447, 66, 67, 7, 38, 0, 0, 0),
    ]


def test_real_reviews():
    data = load("reviews", data_dir=shared("data/reviews"))
    assert len(data.y_train) + len(data.y_test) == 10_662
    assert np.bincount(data.y_train).tolist() == [4265, 4265]
    assert data.x_train.max() == len(data.vocabulary) - 1


@pytest.mark.slow
def test_real_cifar():
    data = load("cifar10", data_dir=shared("data/cifar10"))
    assert data.x_train.shape == (50_000, 3, 32, 32)
    assert np.bincount(data.y_train).tolist() == [5000] * 10
    assert np.bincount(data.y_test).tolist() == [1000] * 10
