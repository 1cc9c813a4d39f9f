-- Changes what is given (not null) of a queue's policy and fairness, and all of its limits if told so.
UPDATE jobwire.queue SET policy = coalesce(%(policy)s::int2, policy), fair = coalesce(%(fair)s::bool, fair),
    max_active = CASE WHEN %(set_limits)s::bool THEN %(max_active)s::int4 ELSE max_active END,
    rate_starts = CASE WHEN %(set_limits)s THEN %(rate_starts)s::int4 ELSE rate_starts END, rate_ms = CASE WHEN %(set_limits)s THEN %(rate_ms)s::int8 ELSE rate_ms END,
    group_limit = CASE WHEN %(set_limits)s THEN %(group_limit)s::int4 ELSE group_limit END, group_tiers = CASE WHEN %(set_limits)s THEN %(group_tiers)s::jsonb ELSE group_tiers END,
    group_rate_starts = CASE WHEN %(set_limits)s THEN %(group_rate_starts)s::int4 ELSE group_rate_starts END,
    group_rate_ms = CASE WHEN %(set_limits)s THEN %(group_rate_ms)s::int8 ELSE group_rate_ms END
WHERE name = %(name)s
RETURNING name
