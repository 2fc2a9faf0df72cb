<?php
// The requests of one PHP worker: start a session, change it, close it, over sessions of its own.
//   cycle.php SECONDS SESSIONS BYTES PREFIX MODE
// MODE is change; keep: the sessions are left as they were (session.lazy_write); once: every session is started, changed
// and closed one time, new, and SECONDS is not used.
// Prints "ready" when its sessions exist, waits for a line on standard input, prints "done" when the time is over, waits
// for another line, looks whether every change is there, and prints one line of JSON.
[, $seconds, $sessions, $bytes, $prefix, $mode] = $argv;
$why = '';
set_error_handler(function ($level, $message) use (&$why) { $why = $why ?: $message; return true; });

// Nothing that a handler could compress.
$payload = random_bytes((int)$bytes);
$id = fn(int $i): string => sprintf('%s%026d', $prefix, $i);

function change(string $id, string $payload): bool {
    session_id($id);
    if (!session_start()) { return false; }
    $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;
    $_SESSION['payload'] = $payload;
    return session_write_close();
}

function look(string $id): ?int {
    session_id($id);
    $n = session_start() ? ($_SESSION['n'] ?? 0) : null;
    session_write_close();
    return $n;
}

$before = [];
for ($i = 0; $i < $sessions && $mode !== 'once'; $i++) {
    if (!change($id($i), $payload) || $why !== '') { break; }
    $before[$i] = $_SESSION['n'];
}
echo "ready\n";
fgets(STDIN);

$done = 0;
$times = [];
$usage = getrusage();
$start = hrtime(true);
$end = $start + (int)($seconds * 1e9);
for ($t = $start; $why === '' && ($mode === 'once' ? $done < $sessions : $t < $end); $t = $now) {
    $name = $id($done % $sessions);
    if ($mode === 'keep') {
        session_id($name);
        $ok = session_start() && session_write_close();
    } else {
        $ok = change($name, $payload);
    }
    $_SESSION = [];
    if (!$ok) { break; }
    $now = hrtime(true);
    $us = intdiv($now - $t, 1000);
    $times[$us] = ($times[$us] ?? 0) + 1;
    $done++;
}
$spent = (hrtime(true) - $start) / 1e9;
$used = getrusage();
echo "done\n";
fgets(STDIN);

for ($i = 0; $why === '' && $i < $sessions && $mode !== 'once'; $i++) {
    $want = $before[$i] + ($mode === 'change' ? intdiv($done, $sessions) + ($i < $done % $sessions ? 1 : 0) : 0);
    $n = look($id($i));
    if ($n !== $want && $why === '') { $why = sprintf('a session was changed %d times and shows %d', $want, $n ?? -1); }
}
$micros = fn(string $kind): int => ($used["$kind.tv_sec"] - $usage["$kind.tv_sec"]) * 1000000 + $used["$kind.tv_usec"] - $usage["$kind.tv_usec"];
echo json_encode(['done' => $done, 'seconds' => $spent, 'reason' => $why ?: (isset($ok) && !$ok ? 'session_start() failed' : ''),
    'times' => (object)$times, 'user' => $micros('ru_utime'), 'system' => $micros('ru_stime')], JSON_INVALID_UTF8_SUBSTITUTE), "\n";
