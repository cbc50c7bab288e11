//! Weight sharing: which few values the surviving weights take. A file per quantiser.
