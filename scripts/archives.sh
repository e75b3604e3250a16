# SPDX-License-Identifier: MIT
#
# The archives of Debian packages that this machine is set up to use: for scripts that fetch from
# other suites of them. To be sourced.

# Prints "KEYRING URI" (KEYRING is - when there is none) of each archive with a main component that
# the machine has for its own release; both of apt's file formats. Debian's own comes first where
# its file has Debian's usual name; other archives may call their suites alike, so each is tried.
own_archives() {
	local codename f files=()
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
	for f in /etc/apt/sources.list /etc/apt/sources.list.d/{debian.sources,*.sources,*.list}; do
		[ ! -f "$f" ] || files+=("$f")
	done
	awk -v codename="$codename" '
	function show(key, uri) {
		if (!seen[uri]++)
			print (key == "" ? "-" : key), uri
	}
	function stanza_end() {
		if (own && main && uri != "")
			show(key, uri)
		own = main = 0
		uri = key = ""
	}
	function is_own(suite) { return suite == codename || suite == "stable" }
	FNR == 1 { stanza_end() }
	/^[ \t]*#/ { next }
	FILENAME ~ /\.sources$/ {
		name = tolower($1)
		if ($0 ~ /^[ \t]*$/)
			stanza_end()
		else if (name == "uris:")
			uri = $2
		else if (name == "signed-by:" && $2 ~ /^\//)
			key = $2
		for (i = 2; i <= NF; i++) {
			own = own || name == "suites:" && is_own($i)
			main = main || name == "components:" && $i == "main"
		}
		next
	}
	$1 == "deb" || $1 == "deb-src" {
		line_key = ""
		if (match($0, /\[[^]]*\]/)) {
			options = substr($0, RSTART + 1, RLENGTH - 2)
			$0 = substr($0, 1, RSTART - 1) substr($0, RSTART + RLENGTH)
			if (match(options, /signed-by=[^ ]+/))
				line_key = substr(options, RSTART + 10, RLENGTH - 10)
		}
		if (is_own($3) && $4 == "main")
			show(line_key, $2)
	}
	END { stanza_end() }
	' /dev/null "${files[@]}"
}
