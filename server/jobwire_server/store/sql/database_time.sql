-- What time it is by the only clock that decides.
SELECT clock_timestamp() AS now
