<?php
session_start();
if (!isset($_SESSION['session_time'])) {
    $_SESSION['session_time'] = time();
}
echo 'session_time: ', $_SESSION['session_time'], "\n";
echo 'now_time: ', time(), "\n";
echo 'session_id: ', session_id(), "\n";
