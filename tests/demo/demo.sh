#!/bin/bash
# Two web hosts share a session: memcached, and on each "host" a mount, php-fpm with its save_path there, and nginx.
# Everything runs in a directory of its own under /tmp and is ended by its process id.
set -euo pipefail

sessfs=$(realpath "${1:?usage: demo.sh SESSFS}")
[ "$(id -u)" = 0 ] || { echo "the demo mounts filesystems: run it as root (sudo make demo)" >&2; exit 1; }
here=$(dirname "$(realpath "$0")")
dir=$(mktemp -d /tmp/sessfs-demo-XXXXXX)
chmod 755 "$dir"
pids=()

end() {
    code=$?
    set +e
    for host in a b; do
        mountpoint -q "$dir/$host/sessions" && "$sessfs" umount --lazy "$dir/$host/sessions"
    done
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill "${pids[i]}" 2>/dev/null
        wait "${pids[i]}" 2>/dev/null
    done
    for host in a b; do # the daemons end with their mounts
        [ -f "$dir/$host/daemon" ] || continue
        for _ in $(seq 100); do kill -0 "$(cat "$dir/$host/daemon")" 2>/dev/null || break; sleep 0.1; done
    done
    [ "$code" = 0 ] || { echo "the demo failed (exit $code); the logs:" >&2; tail -n 20 "$dir"/*.log "$dir"/*/*.log >&2; }
    rm -rf "$dir"
    exit "$code"
}
trap end EXIT
trap 'exit 130' INT TERM

free_port() {
    php -n -r '$s = stream_socket_server("tcp://127.0.0.1:0"); echo substr(strrchr(stream_socket_get_name($s, false), ":"), 1);'
}

cache=$(free_port)
memcached -u root -U 0 -l 127.0.0.1 -p "$cache" 2>"$dir/memcached.log" &
pids+=($!)
echo "memcached           127.0.0.1:$cache"

declare -A url
fpm=$(ls /usr/sbin/php-fpm* | head -n 1)
for host in a b; do
    h=$dir/$host
    mkdir -p "$h/sessions" "$h/www" "$h/tmp"
    cp "$here/index.php" "$h/www/index.php"
    cat >"$h/config.yaml" <<EOF
mountpoint: $h/sessions
cache:
  servers:
    - {name: cache1, address: "127.0.0.1:$cache"}
admin: {socket: $h/admin.sock}
EOF
    "$sessfs" mount --require-servers --config "$h/config.yaml" 2>"$h/sessfs.log"
    "$sessfs" status --json --config "$h/config.yaml" | sed -n 's/^ *"pid": \([0-9]*\),$/\1/p' | head -n 1 >"$h/daemon"
    cat >"$h/fpm.conf" <<EOF
[global]
error_log = $h/fpm.log
daemonize = no
[www]
user = www-data
group = www-data
listen = $h/fpm.sock
listen.mode = 0666
pm = static
pm.max_children = 2
php_admin_value[session.save_handler] = files
php_admin_value[session.save_path] = $h/sessions
EOF
    "$fpm" -n -F -R -y "$h/fpm.conf" 2>>"$h/fpm.log" &
    pids+=($!)
    port=$(free_port)
    cat >"$h/nginx.conf" <<EOF
daemon off;
master_process off;
pid $h/nginx.pid;
error_log $h/nginx.log;
events {}
http {
  access_log off;
  client_body_temp_path $h/tmp/body; fastcgi_temp_path $h/tmp/fastcgi; proxy_temp_path $h/tmp/proxy;
  scgi_temp_path $h/tmp/scgi; uwsgi_temp_path $h/tmp/uwsgi;
  server {
    listen 127.0.0.1:$port;
    root $h/www;
    location ~ \.php$ {
      include /etc/nginx/fastcgi_params;
      fastcgi_param SCRIPT_FILENAME \$document_root\$fastcgi_script_name;
      fastcgi_pass unix:$h/fpm.sock;
    }
  }
}
EOF
    nginx -c "$h/nginx.conf" 2>>"$h/nginx.log" &
    pids+=($!)
    url[$host]=http://127.0.0.1:$port/index.php
    for _ in $(seq 100); do curl -s -o /dev/null "http://127.0.0.1:$port/" && [ -S "$h/fpm.sock" ] && break; sleep 0.1; done
    echo "host $host              ${url[$host]}   sessions in $h/sessions"
done
echo
grep fuse.sessfs /proc/mounts | grep "$dir"
echo

cookie=demo$(head -c 12 /dev/urandom | od -An -tx1 | tr -d ' \n')
answer_a=$(curl -sf -b "PHPSESSID=$cookie" "${url[a]}")
sleep 1.1
answer_b=$(curl -sf -b "PHPSESSID=$cookie" "${url[b]}")
printf 'host a answers:\n%s\n\nhost b answers:\n%s\n\n' "$answer_a" "$answer_b"

field() { sed -n "s/^$2: //p" <<<"$1"; }
for name in session_time session_id; do
    [ -n "$(field "$answer_a" $name)" ] && [ "$(field "$answer_a" $name)" = "$(field "$answer_b" $name)" ] || { echo "$name differs" >&2; exit 1; }
done
[ "$(field "$answer_a" now_time)" != "$(field "$answer_b" now_time)" ] || { echo "now_time does not move" >&2; exit 1; }
echo "The same session_time and session_id on both hosts; now_time moves."
