-- The logs of the builds that have ended.
INSERT INTO logs (job_id, content, created_at, updated_at, aggregated_at, archiving, archive_verified)
SELECT 3001 + no * 2, 'Done. Your build exited with 0.', now() - interval '2 hours', now() - interval '2 hours',
       now() - interval '2 hours', false, false
FROM generate_series(1, 30) AS no;
