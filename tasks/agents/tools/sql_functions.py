"""The SQL functions that a query may call: they compute from what they are given, and do nothing else.

Named one by one, since whatever else a server offers is unknown: reading files, sleeping, locking, connecting to other
servers, running text as SQL, making huge values out of small ones. The names are those of the servers, and those that
sqlglot gives to what it knows under several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_SYNTAX: Final = """
    and or xor not case if iif cast try_cast safe_cast exists any all between interval extract filter collate
    overlay position trim array struct columns
"""
_VALUES: Final = """
    coalesce nullif ifnull nvl nvl2 greatest least decode isnull equal_null is_nan is_inf typeof pg_typeof
    cast_to_str_type to_number to_char to_boolean to_double try_to_number number_to_str current_date current_time
    current_timestamp current_datetime localtime localtimestamp now curdate curtime getdate sysdate utc_date
    utc_time utc_timestamp
"""
_NUMBERS: Final = """
    abs acos acosh asin asinh atan atan2 atanh cbrt ceil ceiling cos cosh cot degrees div exp factorial floor gcd
    lcm ln log log10 log2 mod pi pow power radians rand random round scale sign signum sin sinh sqrt tan tanh trunc
    truncate width_bucket bitwise_count safe_divide
"""
_TEXT: Final = """
    ascii bit_length btrim char char_length character_length chr concat concat_ws contains elt ends_with endswith
    field find_in_set glob hex initcap instr lcase left length len levenshtein like lower ltrim md5 mid octet_length
    byte_length ord quote regexp_count regexp_extract regexp_extract_all regexp_instr regexp_i_like regexp_ilike
    regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_substr replace reverse right
    rtrim sha sha1 sha2 soundex split split_by_string split_part starts_with startswith str_position strpos substr
    substring substring_index to_hex translate ucase unaccent unhex unicode upper likelihood likely unlikely
"""
_TIMES: Final = """
    add_months age date date_add date_bin date_diff date_format date_from_parts date_part date_str_to_date date_sub
    date_to_date_str date_trunc datediff datetime datetime_add datetime_diff datetime_sub datetime_trunc day
    day_of_month day_of_week day_of_year dayname dayofmonth dayofweek dayofweek_iso dayofyear from_days
    from_unixtime hour isodow julianday justify_days justify_hours justify_interval last_day last_day_of_month
    make_date make_interval make_timestamp microsecond minute month monthname months_between period_add period_diff
    quarter sec_to_time second str_to_date str_to_time str_to_unix strftime time time_add time_diff time_str_to_date
    time_str_to_time time_sub time_to_sec time_to_str time_to_time_str time_to_unix time_trunc timediff timestamp
    timestamp_add timestamp_diff timestamp_sub timestamp_trunc timestampadd timestampdiff to_date to_days to_seconds
    to_timestamp ts_or_di_to_di ts_or_ds_add ts_or_ds_diff ts_or_ds_to_date ts_or_ds_to_date_str
    ts_or_ds_to_datetime ts_or_ds_to_time ts_or_ds_to_timestamp unix_timestamp unix_to_str unix_to_time
    unix_to_time_str unixepoch week week_of_year weekday weekofyear year year_of_week yearofweek yearweek
    convert_timezone convert_tz at_time_zone
"""
_GROUPS: Final = """
    any_value approx_count_distinct approx_distinct approx_quantile arg_max arg_min argmax argmin array_agg avg
    bit_and bit_or bit_xor bool_and bool_or booland_agg boolor_agg corr count count_if countif covar_pop covar_samp
    cume_dist dense_rank every first first_value group_concat grouping grouping_id json_agg json_arrayagg
    json_group_array json_group_object json_object_agg json_objectagg j_s_o_n_array_agg j_s_o_n_object_agg
    j_s_o_n_b_object_agg jsonb_agg jsonb_object_agg kurtosis lag last last_value lead listagg logical_and logical_or
    max max_by median min min_by mode nth_value ntile percent_rank percentile_cont percentile_disc quantile rank
    regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy row_number skewness
    std stddev stddev_pop stddev_samp stdev string_agg sum total var_pop var_samp variance variance_pop
    variance_samp
"""
_JSON: Final = """
    -> ->> json json_array json_array_contains json_array_length json_contains json_each json_extract
    json_extract_path json_extract_path_text json_extract_scalar json_format json_keys json_length json_object
    json_quote json_type json_unquote json_valid json_value jsonb_array_length jsonb_contains jsonb_exists
    jsonb_extract jsonb_extract_path jsonb_extract_path_text jsonb_extract_scalar jsonb_typeof j_s_o_n_array
    j_s_o_n_object j_s_o_n_exists j_s_o_n_value_array j_s_o_n_b_contains_top_key parse_json to_json to_jsonb
    row_to_json
"""
_ARRAYS: Final = """
    array_all array_any array_append array_cat array_contains array_contains_all array_contained_by array_distinct
    array_first array_has array_has_all array_last array_length array_lower array_max array_min array_overlaps
    array_position array_prepend array_remove array_reverse array_size array_slice array_sort array_sum
    array_to_string array_upper cardinality string_to_array unnest explode generate_series exploding_generate_series
    generate_date_array generate_timestamp_array
"""
ALLOWED: Final = frozenset(" ".join((_SYNTAX, _VALUES, _NUMBERS, _TEXT, _TIMES, _GROUPS, _JSON, _ARRAYS)).split())


def refused_functions(tree: Any, also: Iterable[str] = ()) -> list[str]:
    """Return the names of the functions in ``tree`` that may not be called. ``also`` may."""
    from sqlglot import exp

    allowed = ALLOWED | {name.lower() for name in also}
    found = {_names(node) for node in tree.find_all(exp.Func)}
    return sorted(names[0] for names in found if not allowed.intersection(names))


def _names(node: Any) -> tuple[str, ...]:
    from sqlglot import exp

    # What sqlglot does not know has its name in the text, and so has what it knows only in part.
    if isinstance(node, (exp.Anonymous, exp.AnonymousAggFunc)):
        return (str(node.name or node.this).lower(),)
    return tuple(name.lower() for name in type(node).sql_names())
