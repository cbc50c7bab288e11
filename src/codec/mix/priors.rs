//! First weights of the mixers: constants of the format, in units of 2^-16.
//!
//! They are means of what mixers had learned at the end of real layers; `benches/mix_priors.rs` makes them anew. Another
//! list is another codec.

/// Of the predictor of zeros: two for each context of [`super::contexts::code_zero`], then its features.
pub(super) const ZERO: [i32; 57] = [
    2080, 1388, 1755, 1006, 1957, 1333, 1534, 938, 1867, 1295, 1738, 1110, 1731, 1155, 2012, 1725, 1710, 941, 1891,
    964, 1872, 1410, 2178, 1519, 2013, 1301, 2128, 1458, 2349, 1873, 1900, 1384, 1907, 1495, 1841, 1163, 1875, 1598,
    2353, 1951, 1751, 1456, 4093, 2182, 1668, 2063, 1617, 1578, 1541, 3596, 3146, 2796, 2966, 3486, 3145, 3299, 3187,
];

/// Of the predictor of signs: two for each context of [`super::contexts::code_sign`], then its features.
pub(super) const SIGN: [i32; 30] = [
    617, -1118, 1625, 802, 3409, 3342, 2927, 1851, 3977, 3645, 3566, 2790, 2025, 989, 6068, 5382, 7429, 7842, 1021,
    3273, 3809, 1546, 3375, 3637, 2629, 3183, 2281, 2761, 7543, 8503,
];

/// Of the predictor of magnitudes: two for each context of [`super::contexts::code_magnitude`], then its features.
pub(super) const MAGNITUDE: [i32; 39] = [
    1501, 1435, 1460, 1464, 1251, 763, 5119, 2487, 4069, 2113, 1349, 785, 1816, 1775, 1131, 1182, 3029, 804, 2629,
    -551, 3327, 3111, 2700, 2569, 3974, 3935, 1225, 631, 798, 4089, 4103, 3199, 2975, 1751, 2225, 2399, 4945, 2126,
    3110,
];
