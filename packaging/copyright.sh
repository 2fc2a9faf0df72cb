#!/bin/sh
# Writes whose work is in the binary, and on which terms: the licences of all modules that it is built from, and Go's.
set -eu
go=${GO:-go}
cat <<'TEXT'
sessfs: copyright the authors of sessfs.

The program sessfs contains the following works of others.
TEXT
licence() { # NAME DIR
	for file in "$2"/LICENSE* "$2"/LICENCE* "$2"/COPYING*; do
		[ -f "$file" ] || continue
		printf '\n%s\n%s\n\n' "$1" "$(printf '%s' "$1" | tr -c '' '=')"
		cat "$file"
		return
	done
	echo "copyright.sh: no licence found for $1 in $2" >&2
	return 1
}
licence "The Go programming language and its libraries" "$("$go" env GOROOT)"
"$go" list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/sessfs | sort -u |
	while read -r path version dir; do
		[ -z "$path" ] || licence "$path $version" "$dir"
	done
