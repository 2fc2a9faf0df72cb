<?php
// One of several PHP workers that all want the same session: each counts one up in it, holding it for a while.
//   contend.php SECONDS HOLD_MICROSECONDS ID
// Prints "ready", waits for a line on standard input, prints "done" when the time is over, waits for
// another line, and prints one line of JSON: how often it counted, how often session_start() failed, and how long it
// waited each time. With SECONDS 0 it only says what the session holds.
[, $seconds, $hold, $id] = $argv;
$why = '';
set_error_handler(function ($level, $message) use (&$why) { $why = $why ?: $message; return true; });

// The connection is there before the time starts.
session_id($id . '-' . getmypid());
session_start();
session_destroy();
$_SESSION = [];
echo "ready\n";
fgets(STDIN);

$done = $failed = 0;
$times = [];
$usage = getrusage();
$start = hrtime(true);
$end = $start + (int)($seconds * 1e9);
while (($t = hrtime(true)) < $end) {
    session_id($id);
    if (!session_start()) { $failed++; continue; }
    $us = intdiv(hrtime(true) - $t, 1000);
    $times[$us] = ($times[$us] ?? 0) + 1;
    $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;
    usleep((int)$hold);
    session_write_close();
    $_SESSION = [];
    $done++;
}
$spent = (hrtime(true) - $start) / 1e9;
$used = getrusage();
echo "done\n";
fgets(STDIN);

$value = 0;
if ($seconds == 0) {
    session_id($id);
    $value = session_start() ? ($_SESSION['n'] ?? 0) : -1;
    session_write_close();
}
$micros = fn(string $kind): int => ($used["$kind.tv_sec"] - $usage["$kind.tv_sec"]) * 1000000 + $used["$kind.tv_usec"] - $usage["$kind.tv_usec"];
echo json_encode(['done' => $done, 'seconds' => $spent, 'failed' => $failed, 'reason' => $why, 'value' => $value,
    'times' => (object)$times, 'user' => $micros('ru_utime'), 'system' => $micros('ru_stime')], JSON_INVALID_UTF8_SUBSTITUTE), "\n";
