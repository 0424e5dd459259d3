# kvmlite's completion for fish: put it into a folder of $fish_complete_path, such as
# /usr/local/share/fish/vendor_completions.d.

function __kvmlite_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] __complete $words[2..] 2>/dev/null)
        if test "$line" = :files
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end

complete -c kvmlite -f -a '(__kvmlite_complete)'
