// load.php STOP SESSIONS WORKER: increments counters in shared sessions, makes and destroys its own, until the file STOP is
// there; then prints what it did as JSON.
$stop = $argv[1]; $sessions = (int)$argv[2]; $worker = $argv[3];
$acknowledged = []; $failures = []; $uses = []; $longest = 0;
set_error_handler(function ($no, $text) use (&$failures) { $failures[] = $text; return true; });
for ($i = 0; !file_exists($stop); $i++) {
    $id = 'shared' . mt_rand(0, $sessions - 1);
    $begun = microtime(true);
    $bad = count($failures);
    session_id($id);
    if (!session_start()) { $failures[] = 'session_start'; continue; }
    $from = hrtime(true);
    $_SESSION['n'] = ($_SESSION['n'] ?? 0) + 1;
    // Now and then more than one WRITE can take.
    $_SESSION['pad'] = $i % 50 == $worker ? str_repeat('x', 2500000) : str_repeat('x', mt_rand(0, 3000));
    if ($i % 5 == 0) { usleep(mt_rand(0, 20000)); }
    $to = hrtime(true);
    if (!session_write_close()) { $failures[] = 'session_write_close'; }
    if (count($failures) == $bad) { $acknowledged[$id] = ($acknowledged[$id] ?? 0) + 1; }
    $uses[] = [$id, $from, $to];
    $longest = max($longest, microtime(true) - $begun);
    if ($i % 7 == 0) { // a session of its own: made, read back, destroyed
        session_id("own{$worker}x$i"); session_start(); $_SESSION['a'] = $i; session_write_close();
        session_start();
        if (($_SESSION['a'] ?? null) !== $i) { $failures[] = 'a session that was just written is not there'; }
        if ($i % 2) { if (!session_destroy()) { $failures[] = 'session_destroy'; } } else { $_SESSION = []; session_write_close(); }
    }
}
echo json_encode(['Acknowledged' => $acknowledged, 'Failures' => $failures, 'Uses' => $uses, 'Longest' => $longest]);
