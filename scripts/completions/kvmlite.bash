# kvmlite's completion for bash: put it where bash-completion looks, such as
# /usr/local/share/bash-completion/completions/kvmlite, or source it.

_kvmlite() {
  local line=${COMP_LINE:0:COMP_POINT} words=() current candidate
  # Whole words: readline cuts at colons and equals signs too.
  read -ra words <<<"$line"
  [[ $line == *[[:space:]] ]] && words+=('')
  current=${words[-1]}
  # What readline takes for done: it replaces only what is behind.
  local done=${current%"${current##*[:=]}"}
  COMPREPLY=()
  while IFS=$'\t' read -r candidate _; do
    if [[ $candidate == :files ]]; then
      compopt -o filenames 2>/dev/null
      while read -r candidate; do
        COMPREPLY+=("${candidate#"$done"}")
      done < <(compgen -f -- "$current")
    else
      # An option that takes a value, or the start of one, is not the end of a word.
      [[ $candidate == *= ]] && compopt -o nospace 2>/dev/null
      COMPREPLY+=("${candidate#"$done"}")
    fi
  done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
}

complete -F _kvmlite kvmlite
