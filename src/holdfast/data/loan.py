"""Lending Club loans: what became of a loan, by US state; the Kaggle file or OpenIntro's sample of it."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from holdfast.data.dataset import Dataset, assemble
from holdfast.data.files import read_frame
from holdfast.types import DataError

LABELS = (
    "Current",
    "Fully Paid",
    "Late (31-120 days)",
    "In Grace Period",
    "Charged Off",
    "Late (16-30 days)",
    "Default",
    "Does not meet the credit policy. Status:Fully Paid",
    "Does not meet the credit policy. Status:Charged Off",
)
TEST_SHARE = 0.2
CLIP = 10.0
STATE_COLUMNS = ("addr_state", "state")

OPENINTRO_COLUMNS = {
    "num_tl_120dpd_2m": "num_accounts_120d_past_due",
    "num_tl_90g_dpd_24m": "num_accounts_30d_past_due",
    "pub_rec_bankruptcies": "public_record_bankrupt",
    "pub_rec": "num_historical_failed_to_pay",
    "acc_now_delinq": "current_accounts_delinq",
    "tax_liens": "tax_liens",
}
"""OpenIntro's column (for the second, the nearest) for each of the six Kaggle columns of the papers' backdoor."""

# Columns that are no feature: identifiers, dates and free text ...
_NO_FEATURE = {
    *("id", "member_id", "url", "desc", "title", "emp_title", "zip_code", "issue_d", "issue_month", "earliest_cr_line"),
    *("last_pymnt_d", "next_pymnt_d", "last_credit_pull_d", "payment_plan_start_date", "debt_settlement_flag_date"),
}
# ... and those that are empty in more than half of the rows (joint applications, hardship plans, settlements).
_MOSTLY_EMPTY = {
    *("annual_inc_joint", "dti_joint", "verification_status_joint", "revol_bal_joint", "mths_since_last_delinq"),
    *("mths_since_last_major_derog", "mths_since_last_record", "mths_since_recent_bc_dlq", "deferral_term"),
    *("mths_since_recent_revol_delinq", "orig_projected_additional_accrued_interest"),
    *("annual_income_joint", "verification_income_joint", "debt_to_income_joint", "months_since_last_delinq"),
    *("months_since_90d_late",),
}
_MOSTLY_EMPTY_PREFIXES = ("sec_app_", "hardship_", "settlement_")
_KEPT = {"hardship_flag"}
# A text in the Kaggle file ("10+ years"), which the papers leave out; a number of years in OpenIntro's.
_KAGGLE_ONLY_DROPPED = {"emp_length"}


def find_loan(folder: Path) -> bool:
    """Whether the folder holds a CSV file (plain, .gz or .zip) of loans under one of its public names."""
    return _file(folder) is not None


def read_loan(path: Path, *, seed: int) -> Dataset:
    """Loans as rows of numbers, nine statuses as labels, the US state as the client.

    From Kaggle's `loan.csv` (145 columns) 91 features remain, as in "Residual-based reweighting" (appendix: 91
    inputs, layers of 46, 23 and 9); from OpenIntro's `loans_full_schema` 46. Left out are identifiers, dates, free
    text and columns that are empty in most rows. Words become numbers in alphabetical order, gaps become 0; every
    feature is then shifted and scaled to mean 0 and standard deviation 1 over the training rows and clipped to
    +-10, so that an income of a hundred million does not drown the rest. Those means are a computation across
    clients: a real federation would take them from public statistics.

    Some features (`paid_total`, `total_pymnt`, ...) are known only after the outcome. The papers keep them, so
    accuracies here are those of the papers' task, not of predicting a new loan.

    Kaggle's file has 2.26 million rows and needs about 5 GB of memory while it is read.

    Args:
        path: the CSV file (plain, .gz or .zip), or a folder with it.
        seed: draws the test rows, a fifth of each state's.

    Raises:
        DataError: columns missing, an unknown loan status, a row without state.
    """
    if path.is_dir():
        file = _file(path)
        if file is None:
            raise DataError(f"{path} has none of the files {', '.join(NAMES)}; put one of them there")
        path = file
    columns = _columns(path)
    state = next((name for name in STATE_COLUMNS if name in columns), None)
    if state is None or "loan_status" not in columns:
        raise DataError(f"{path} lacks the columns loan_status and {' or '.join(STATE_COLUMNS)}; it is not a loan file")
    features = [name for name in columns if name not in ("loan_status", state) and _is_feature(name, state)]
    table = read_frame(path, [*features, "loan_status", state])
    status = table["loan_status"].map({label: code for code, label in enumerate(LABELS)})
    if status.isna().any():
        unknown = table["loan_status"][status.isna()].iloc[0]
        raise DataError(f"{path}: loan_status {str(unknown)!r} is none of the nine of the data set; drop those rows")
    if table[state].isna().any():
        raise DataError(f"{path}: column {state!r} is empty in {int(table[state].isna().sum())} rows; drop those rows")
    x = np.empty((len(table), len(features)), dtype=np.float32)
    for position, name in enumerate(features):
        x[:, position] = _numbers(table[name])
    data = assemble(
        "loan",
        x,
        status.to_numpy(dtype=np.int64),
        users=table[state].to_numpy(dtype=str),
        label_names=LABELS,
        feature_names=features,
        seed=seed,
        test_share=TEST_SHARE,
    )
    return _standardized(data)


NAMES = ("loan.csv", "loan.csv.gz", "loan.csv.zip", "loans_full_schema.csv", "loans_full_schema.csv.gz")


def _file(folder: Path) -> Path | None:
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def _columns(path: Path) -> list[str]:
    try:
        return [str(name) for name in pd.read_csv(path, nrows=0).columns]
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as CSV ({str(error).splitlines()[0]})") from error


def _is_feature(name: str, state: str) -> bool:
    if name in _KEPT:
        return True
    if name in _NO_FEATURE or name in _MOSTLY_EMPTY or name.startswith(_MOSTLY_EMPTY_PREFIXES):
        return False
    return not (state == "addr_state" and name in _KAGGLE_ONLY_DROPPED)


def _numbers(column: pd.Series) -> NDArray[np.float64]:
    """A column as numbers: words in alphabetical order count 0, 1, ... after the gaps' 0."""
    if pd.api.types.is_numeric_dtype(column):
        return np.asarray(column.fillna(0), dtype=np.float64)
    words = column.fillna("").astype(str).str.strip()
    return np.unique(words.to_numpy(dtype=str), return_inverse=True)[1].astype(np.float64)


def _standardized(data: Dataset) -> Dataset:
    mean = data.x_train.mean(axis=0, dtype=np.float64)
    deviation = data.x_train.std(axis=0, dtype=np.float64)
    scale = np.where(deviation > 0, deviation, 1.0)

    def scaled(x: NDArray[np.float32]) -> NDArray[np.float32]:
        clipped: NDArray[np.float32] = np.clip((x - mean) / scale, -CLIP, CLIP).astype(np.float32)
        return clipped

    return replace(data, x_train=scaled(data.x_train), x_test=scaled(data.x_test))
