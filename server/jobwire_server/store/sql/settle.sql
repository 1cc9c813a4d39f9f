-- Ends valid leases of one queue other than by completion, as the input says for each: `fail`, `release`, `lost`, `returned`.
--
-- fail      a retry is used up; without one left, or if permanent, the job is failed. With a requested stop it is cancelled.
-- release   given back by the worker, with its delay or a pause that doubles with its releases. With a requested stop it is cancelled.
-- lost      given back because the job's session was lost with it: counted; at the limit the job is failed as poison.
-- returned  given back through no fault of the worker: nothing is counted. With a requested stop: cancelled; past its limit: as `fail`.
--
-- A failed job whose word or queue says so leaves a dead letter, to be carried over later. The input is in the order of the ids, and so are the locks. Live rows are looked up as in `complete`. Returns the new state (2 retry, 5 cancelled, 6 failed) and when the
-- job may be delivered again.
WITH input AS MATERIALIZED (
    SELECT %(queue)s::text COLLATE "C" AS queue, i.* FROM jsonb_to_recordset(%(items)s::jsonb) AS i (id uuid, token uuid, place int, how text, type text, message text, trace text, permanent bool, pause_ms bigint)
), lease AS MATERIALIZED (
    SELECT i.*, c.attempts[i.place] AS attempt, c.claimed_at, c.worker
    FROM input i
    CROSS JOIN LATERAL (SELECT k.* FROM jobwire.claim k WHERE k.queue = i.queue AND k.token = i.token AND k.ids[i.place] = i.id OFFSET 0) c
), locked AS MATERIALIZED (
    SELECT j.queue, j.id, j.stop_reason, j.retry_count, j.retry_limit, j.loss_count, j.release_count, j.retry_delay_ms, j.retry_backoff, j.retry_delay_max_ms, j.errors,
        l.how, l.type, l.message, l.trace, l.permanent, l.pause_ms, l.token, l.attempt, l.claimed_at, l.worker
    FROM lease l CROSS JOIN LATERAL (
        SELECT k.* FROM jobwire.live_job k WHERE k.queue = l.queue AND k.id = l.id AND k.attempt = l.attempt FOR UPDATE
    ) j
), judged AS MATERIALIZED (
    SELECT l.*,
        stop_reason IS NOT DISTINCT FROM 1 AS cancelled,
        how = 'fail' OR (how IN ('lost', 'returned') AND stop_reason IS NOT DISTINCT FROM 2) AS failed,
        how = 'lost' AND stop_reason IS NULL AS lost,
        clock_timestamp() AS ended_at
    FROM locked l
), verdict AS MATERIALIZED (
    SELECT v.*,
        CASE WHEN cancelled THEN 5
            WHEN failed AND (coalesce(permanent, false) OR retry_count >= retry_limit) THEN 6
            WHEN lost AND loss_count + 1 >= %(poison)s THEN 6
            ELSE 2 END AS state,
        CASE WHEN failed THEN coalesce(pause_ms * interval '1 millisecond', jobwire.retry_pause(retry_delay_ms, retry_backoff, retry_delay_max_ms, retry_count))
            WHEN how = 'release' THEN coalesce(pause_ms, CASE WHEN release_count = 0 THEN 0 ELSE least(1000 * 2 ^ least(release_count - 1, 10), 60000) END) * interval '1 millisecond'
            ELSE interval '0' END AS pause,
        CASE WHEN cancelled THEN errors
            WHEN failed OR lost THEN jsonb_path_query_array(coalesce(errors, '[]') || jsonb_build_array(jsonb_build_object(
                'attempt', attempt, 'started', claimed_at, 'time', ended_at, 'worker', worker,
                'type', CASE WHEN how = 'fail' THEN type WHEN failed THEN 'EXPIRED' ELSE 'LOST' END,
                'message', CASE WHEN how = 'fail' THEN message WHEN failed THEN 'the run passed its time limit' ELSE 'the session that ran it was lost' END,
                'trace', CASE WHEN how = 'fail' THEN trace ELSE '' END)), '$[last - 9 to last]')
            ELSE errors END AS new_errors
    FROM judged v
), again AS (
    UPDATE jobwire.live_job j SET attempt = j.attempt + 1,
        retry_count = j.retry_count + v.failed::int, loss_count = j.loss_count + v.lost::int, release_count = j.release_count + (v.how = 'release')::int,
        expires_at = NULL, stop_reason = NULL, stop_at = NULL, waits_since = v.ended_at + v.pause, started_at = v.claimed_at, worker = v.worker,
        settled_token = CASE WHEN v.how IN ('fail', 'release') THEN v.token ELSE j.settled_token END, errors = v.new_errors
    FROM verdict v WHERE j.queue = ANY (ARRAY[v.queue]) AND j.id >= v.id AND j.id <= v.id AND v.state = 2
    RETURNING j.id, j.rank, j.seq, j.gated, j.loss_count >= %(suspect)s AS suspect, clock_timestamp() + v.pause AS due, v.pause
), now_ready AS (
    INSERT INTO jobwire.ready (queue, rank, seq, id, suspect) SELECT %(queue)s, rank, seq, id, suspect FROM again WHERE pause <= interval '0' AND gated IS NOT TRUE
), later AS (
    INSERT INTO jobwire.scheduled (queue, rank, seq, id, suspect, start_after, gated)
    SELECT %(queue)s, rank, seq, id, suspect, due, coalesce(gated, false) FROM again WHERE pause > interval '0'
), to_gates AS (
    INSERT INTO jobwire.gate_event (queue, id, kind, suspect) SELECT %(queue)s, id, CASE WHEN pause > interval '0' THEN 4 ELSE 1 END, suspect FROM again WHERE gated
), gone AS (
    DELETE FROM jobwire.live_job j USING verdict v WHERE j.queue = ANY (ARRAY[v.queue]) AND j.id >= v.id AND j.id <= v.id AND v.state > 2
    RETURNING j.*, v.state, v.claimed_at, v.worker AS by_worker, v.token AS by_token, v.new_errors, v.failed, v.lost, v.how, v.ended_at,
        CASE WHEN v.state = 6 THEN jobwire.letter_target(j.queue, j.dead_letter, j.origin) END AS target
), archived AS (
    INSERT INTO jobwire.archive (queue, id, seq, rank, attempt, retry_count, loss_count, release_count, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms,
        created_at, start_after, started_at, finished_at, drop_on, state, token, worker, progress, progress_count, errors, headers, data, output, key, group_id, tier, dead_letter, origin, checkpoint)
    SELECT queue, id, seq, rank, attempt, retry_count, loss_count + (lost AND state = 6)::int, release_count, retry_limit, retry_delay_ms, retry_backoff, retry_delay_max_ms, expire_ms, retention_ms,
        created_at, start_after, claimed_at, ended_at, jobwire.drop_day(retention_ms), state, CASE WHEN how IN ('fail', 'release') THEN by_token END, by_worker,
        progress, progress_count, new_errors, headers, data, NULL, key, group_id, tier, CASE WHEN state = 6 THEN coalesce(target, left(dead_letter, 0)) ELSE dead_letter END, origin, checkpoint
    FROM gone
), letters AS (
    INSERT INTO jobwire.dead_letter (queue, id, failed_at, target, letter, rank, headers, data, key, group_id, tier, origin)
    SELECT queue, id, ended_at, target, jobwire.letter_id(queue, id, ended_at), rank, headers, data, key, group_id, tier,
        jobwire.origin_of(queue, id, created_at, ended_at, attempt, new_errors -> -1, dead_letter, origin)
    FROM gone WHERE target IS NOT NULL
), left_gates AS (
    INSERT INTO jobwire.gate_event (queue, id, kind) SELECT queue, id, CASE WHEN state = 6 THEN 3 ELSE 2 END FROM gone WHERE gated
)
SELECT id, token, state, CASE WHEN state = 2 THEN pause END AS pause, lost, EXISTS (SELECT FROM gone WHERE target IS NOT NULL) AS letters FROM verdict
