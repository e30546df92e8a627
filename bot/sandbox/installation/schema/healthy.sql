-- A healthy installation: people who were synced lately, and builds that have ended. Nothing waits.
INSERT INTO users (id, name, login, email, created_at, updated_at, is_admin, github_id, github_oauth_token, locale,
                   is_syncing, synced_at, github_scopes, education, first_logged_in_at)
SELECT no, name, login, login || '@example.com', now() - interval '400 days', now() - no * interval '3 hours',
       no = 1, 1000 + no, '--ENCR--' || token, 'en', CASE WHEN no = 6 THEN NULL ELSE false END,
       CASE WHEN no = 6 THEN NULL ELSE now() - no * interval '3 hours' END, '--- []', false, now() - interval '390 days'
FROM unnest(ARRAY['Olga Octo', 'Ada Acme', 'Rui Reyes', 'Mika Moon', 'Sam Stone', 'Nils New'],
            ARRAY['olga', 'ada', 'rui', 'mika', 'sam', 'nils'],
            ARRAY['k0xi8PD06NXwLJRPNBMi2zljMDNkYjc3ZjEyYTEwMWY=', 'z2jiez9kGGB57Q/v1TK8+zZlY2Q5ZDI5Y2Q1ZTMzMzc=',
                  'ujis9cGu5pO7Dd0+Rc03GTE0OTdmZWVhMjlmMGQ0NDg=', 'ztfpk4Vdda4oTGprqHiI62U3MDk1ZGFhZGY3OWU0YmI=',
                  'B8LJ3IF07OSv14O6x2Y+GGFmZTQ4NTU1ZGVmMDdjODM=', 'hEfAhGpSYhwHd/adPsF+yDU2YzJiMWRiYjE0MWY2MjY='])
     WITH ORDINALITY AS people (name, login, token, no);  -- tokens are sealed with the simulated platform's key
SELECT setval('users_id_seq', 6);

INSERT INTO organizations (id, name, login, github_id, created_at, updated_at)
VALUES (1, 'Octo', 'octo-org', 2001, now() - interval '400 days', now() - interval '1 day'),
       (2, 'Acme', 'acme', 2002, now() - interval '400 days', now() - interval '1 day');
SELECT setval('organizations_id_seq', 2);

INSERT INTO memberships (organization_id, user_id, role)
VALUES (1, 1, 'admin'), (1, 3, 'member'), (1, 4, 'member'), (2, 2, 'admin'), (2, 5, 'member'), (2, 6, 'member');

INSERT INTO repositories (id, name, owner_name, created_at, updated_at, active, private, owner_id, owner_type,
                          github_id, default_branch, github_language, settings, next_build_number, last_build_state)
VALUES (1, 'rockets', 'octo-org', now() - interval '400 days', now() - interval '1 hour', true, true, 1,
        'Organization', 3001, 'master', 'Ruby', '{}', 11, 'passed'),
       (2, 'website', 'octo-org', now() - interval '300 days', now() - interval '2 hours', true, false, 1,
        'Organization', 3002, 'main', 'JavaScript', '{}', 11, 'passed'),
       (3, 'billing-service', 'acme', now() - interval '200 days', now() - interval '3 hours', true, true, 2,
        'Organization', 3003, 'main', 'Go', '{"maximum_number_of_builds": 0}', 11, 'failed');
SELECT setval('repositories_id_seq', 3);

SELECT setval('shared_builds_tasks_seq', 3000);
CREATE TEMPORARY TABLE past ON COMMIT DROP AS
SELECT repo, no, 3000 + (repo - 1) * 20 + no * 2 AS build,
       now()::timestamp - (10 - no) * interval '2 hours' - repo * interval '21 minutes' AS at,
       CASE WHEN no % 5 = 0 THEN 'failed' ELSE 'passed' END AS state
FROM generate_series(1, 3) AS repo, generate_series(1, 10) AS no;

INSERT INTO requests (id, repository_id, state, created_at, updated_at, event_type, result, owner_id, owner_type,
                      github_guid, private)
SELECT row_number() OVER (ORDER BY at), repo, 'finished', at - interval '8 seconds', at, 'push', 'approved',
       repo / 3 + 1, 'Organization', md5(build::text), repo <> 2
FROM past;
SELECT setval('requests_id_seq', 30);

INSERT INTO builds (id, repository_id, number, state, created_at, updated_at, started_at, received_at, finished_at,
                    duration, owner_id, owner_type, event_type, branch, cached_matrix_ids, request_id)
SELECT build, repo, no, state, at, at + interval '4 minutes', at + interval '20 seconds', at + interval '15 seconds',
       at + interval '4 minutes', 220, repo / 3 + 1, 'Organization', 'push', 'main', ARRAY[build + 1],
       row_number() OVER (ORDER BY at)
FROM past;

INSERT INTO jobs (id, repository_id, source_id, source_type, queue, type, state, number, worker, created_at, updated_at,
                  queued_at, received_at, started_at, finished_at, owner_id, owner_type, private)
SELECT build + 1, repo, build, 'Build', 'builds.trusty', 'Job::Test', state, no || '.1', 'travis-worker', at,
       at + interval '4 minutes', at + interval '5 seconds', at + interval '15 seconds', at + interval '20 seconds',
       at + interval '4 minutes', repo / 3 + 1, 'Organization', repo <> 2
FROM past;
SELECT setval('shared_builds_tasks_seq', 3062);
