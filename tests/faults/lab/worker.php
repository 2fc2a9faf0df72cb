<?php
// A PHP worker of the fault laboratory: it makes one request after the other, and notes on standard output what it is
// about to do and what became of it, for history.Parse. Whatever is drawn comes from the seed.
//   worker.php WORKER SEED STOP PACE [HOW]       until the file STOP exists, about PACE microseconds between requests;
//                                                HOW is torn: it stores values whose parts do not belong together;
//                                                mortal: it uses sessions only that are destroyed all the time
//   worker.php WORKER SEED read FILE             reads each session named in FILE once
[, $worker, $seed, $stop, $pace] = $argv;
$how = $argv[5] ?? '';
mt_srand(crc32("$seed/$worker"));
$seq = 0;
$warning = '';
set_error_handler(function ($level, $message) use (&$warning) { $warning = $warning ?: $message; return true; });

function note(string $event, int $at, int $seq, ...$fields): void {
    $line = "$event $at $seq";
    foreach ($fields as $f) {
        $line .= ' ' . (is_bool($f) ? (int)$f : ($f === '' ? '-' : rawurlencode((string)$f)));
    }
    fwrite(STDOUT, "$line\n");
}

function pad(string $token, int $size): string {
    return substr(str_repeat(md5($token), intdiv($size, 32) + 1), 0, $size);
}

// value is the session's token, the token before it, its count, and whether its parts do not belong together.
function value(array $s): array {
    if ($s === []) return ['', '', 0, false];
    $whole = isset($s['t'], $s['n'], $s['pad'], $s['size']) && is_string($s['p'] ?? null) && $s['pad'] === pad($s['t'], $s['size']);
    return [(string)($s['t'] ?? ''), (string)($s['p'] ?? ''), (int)($s['n'] ?? 0), !$whole];
}

// call does something that returns whether it succeeded, and tells when it ended, whether without a warning, and more.
function call(callable $f): array {
    global $warning;
    $warning = '';
    $ok = $f();
    $at = hrtime(true);
    return [$at, $ok && $warning === '', $warning ?: (is_string($ok) ? $ok : ($ok ? '' : 'false'))];
}

// start begins a session and returns what it holds; null: it failed.
function start(string $kind, string $id, array $options = []): ?array {
    global $seq;
    session_id($id);
    note('S', hrtime(true), $seq, $kind, $id);
    [$at, $ok, $why] = call(fn() => session_start($options));
    // PHP destroys a session that it cannot decode.
    $got = str_contains($why, 'decode') ? ['', '', 0, true] : value($ok ? $_SESSION : []);
    note('s', $at, $seq, $ok || $got[3], ...[...$got, $why]);
    if (!$ok && session_status() === PHP_SESSION_ACTIVE) session_abort();
    return $ok ? $got : null;
}

function ends(string $kind, string $id, array $value, int $size, callable $f): void {
    global $seq;
    note('E', hrtime(true), $seq, $kind, $id, ...[...$value, $size]);
    [$at, $ok, $why] = call($f);
    note('e', $at, $seq, $ok, $why);
    if (session_status() === PHP_SESSION_ACTIVE) session_abort();
}

function increment(string $id, int $size): void {
    global $seq, $worker, $how;
    $got = start('increment', $id);
    if ($got === null) return;
    $token = "$worker.$seq";
    [$t, , $n] = $got;
    $_SESSION = ['n' => $n + 1, 't' => $token, 'p' => $t, 'size' => $size, 'pad' => pad($how === 'torn' ? 'torn' : $token, $size)];
    // Mostly not at all, rarely for longer than a lease.
    $d = mt_rand(0, 999);
    if ($d >= 600) usleep($d < 900 ? mt_rand(1, 10000) : ($d < 997 ? mt_rand(20000, 100000) : 4000000));
    ends('increment', $id, [$token, $t, $n + 1], $size, fn() => session_write_close());
}

function destroy(string $id): void {
    if (start('destroy', $id) === null) return;
    ends('destroy', $id, ['', '', 0], 0, fn() => session_destroy());
}

// unlinks deletes the file, whoever has the lock. A session that is not there is as good as deleted.
function unlinks(string $id): void {
    ends('unlink', $id, ['', '', 0], 0, function () use ($id) {
        global $warning;
        $ok = unlink(session_save_path() . "/sess_$id");
        if (!$ok && str_contains($warning, 'No such file')) { $warning = ''; return 'missing'; }
        return $ok;
    });
}

// peek reads the file without a lock.
function peek(string $id): void {
    global $seq;
    note('S', hrtime(true), $seq, 'peek', $id);
    $data = '';
    [$at, $ok, $why] = call(function () use ($id, &$data) {
        global $warning;
        $data = file_get_contents(session_save_path() . "/sess_$id");
        if ($data === false && str_contains($warning, 'No such file')) { $warning = ''; $data = ''; }
        return $data !== false;
    });
    $s = $ok && $data !== '' ? unserialize($data) : [];
    note('s', $at, $seq, $ok, ...[...(is_array($s) ? value($s) : ['', '', 0, true]), $why]);
}

if ($stop === 'read') {
    foreach (file($pace, FILE_IGNORE_NEW_LINES) as $id) {
        $seq++;
        start('read', $id, ['read_and_close' => true]);
        $_SESSION = [];
    }
    exit;
}
$own = [];
while (!file_exists($stop)) {
    $seq++;
    // The names change every minute, so that no history becomes too long to be checked.
    $minute = intdiv(hrtime(true), 60000000000);
    $counter = 'c' . mt_rand(0, 5) . "-$minute";
    $mortal = 'd' . mt_rand(0, 3) . "-$minute";
    $any = mt_rand(0, 1) ? $counter : $mortal;
    $d = mt_rand(0, 99);
    if ($how === 'mortal') [$any, $d] = [$mortal, [50, 50, 50, 50, 80, 90, 90, 94, 96, 96][mt_rand(0, 9)]];
    switch (true) {
        case $d < 39: increment($counter, mt_rand(10, 3000)); break;
        case $d < 56: increment($mortal, mt_rand(10, 3000)); break;
        // Large ones come back to the same host mostly: workers are dealt out to the hosts in turn, of which there are three.
        case $d < 62: increment('l' . (mt_rand(0, 7) ? $worker % 3 : mt_rand(0, 2)) . "-$minute", [20000, 20000, 20000, 20000, 200000, 200000, 200000, 2000000][mt_rand(0, 7)]); break;
        case $d < 68: increment($own[] = "n$worker-$seq", mt_rand(10, 3000)); break;
        case $d < 74: if ($own) increment($own[mt_rand(0, count($own) - 1)], mt_rand(10, 3000)); break;
        case $d < 84: start('read', $any, ['read_and_close' => true]); break;
        case $d < 92: peek($any); break;
        case $d < 96: destroy($mortal); break;
        case $d < 98: unlinks($mortal); break;
        default: if ($own) destroy(array_splice($own, mt_rand(0, count($own) - 1), 1)[0]);
    }
    $_SESSION = [];
    usleep(mt_rand(0, 2 * $pace));
}
