//! Observations about one service, free of any wire format.
