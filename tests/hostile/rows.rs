//! Rows of the attack catalogue, on the real programs: each test is named by its row.

mod rows_06;
mod rows_16;
mod rows_20;
mod rows_22;
mod rows_23;
mod rows_24;
mod rows_25;
mod rows_26;
mod tap;
