# SPDX-License-Identifier: MIT
#
# fish completion for ckfast: verbs, options, and the values of options.

# __ckfast_verb VERB…: the command line has one of these verbs.
function __ckfast_verb
    set -l words (commandline -opc)
    test (count $words) -ge 2; and contains -- $words[2] $argv
end

function __ckfast_no_verb
    test (count (commandline -opc)) -eq 1
end

# The value of --base is a list, of which the last directory is completed.
function __ckfast_bases
    set -l before (string match -r '.*,' -- (commandline -ct))
    for dir in (__fish_complete_directories (string replace -r '.*,' '' -- (commandline -ct)) '')
        echo "$before"$dir
    end
end

complete -c ckfast -f
complete -c ckfast -n __ckfast_no_verb -s h -l help -d 'Show the verbs'
complete -c ckfast -n __ckfast_no_verb -s V -l version -d 'Show the version'
complete -c ckfast -n __ckfast_no_verb -a convert -d 'Make the fast image of a dump'
complete -c ckfast -n __ckfast_no_verb -a inspect -d 'Show what is in a fast image or a dump'
complete -c ckfast -n __ckfast_no_verb -a verify -d 'Check every byte of a fast image'
complete -c ckfast -n __ckfast_no_verb -a doctor -d 'Say what makes restores slow, or fail'
complete -c ckfast -n __ckfast_no_verb -a extract -d 'Write the dump of a fast image'
complete -c ckfast -n __ckfast_no_verb -a flatten -d 'Write a fast image that needs no base'
complete -c ckfast -n __ckfast_no_verb -a calibrate -d 'Measure how fast this CPU decodes'
complete -c ckfast -n __ckfast_no_verb -a run -d 'Start a program with the CUDA agent'
complete -c ckfast -n __ckfast_no_verb -a gpud -d 'Keep GPUs ready, as a daemon'
complete -c ckfast -n __ckfast_no_verb -a keep -d 'Have gpud keep images in memory'
complete -c ckfast -n __ckfast_no_verb -a drop -d 'Have gpud no longer keep images'
complete -c ckfast -n __ckfast_no_verb -a park -d 'Free the GPU memory of processes'
complete -c ckfast -n __ckfast_no_verb -a unpark -d 'Give processes their GPU memory back'
complete -c ckfast -n __ckfast_no_verb -a watch -d 'Convert the dumps that turn up in directories'

set -l images convert inspect verify extract flatten doctor
complete -c ckfast -n "__ckfast_verb $images" -a '(__fish_complete_directories)'
complete -c ckfast -n "__ckfast_verb $images" -x -l base -a '(__ckfast_bases)' -d 'Fast images that hold chunks'
complete -c ckfast -n '__ckfast_verb convert inspect' -x -l profile -a 'ram nvme ssd network' -d Storage
complete -c ckfast -n '__ckfast_verb convert verify extract flatten gpud watch' -x -l threads -d Threads
complete -c ckfast -n '__ckfast_verb convert extract flatten' -l force -d 'Replace the output'
complete -c ckfast -n '__ckfast_verb convert verify extract flatten gpud' -s q -l quiet -d 'Errors only'
complete -c ckfast -n '__ckfast_verb convert inspect verify doctor calibrate gpud keep drop park unpark watch' -l json -d 'Print JSON'
complete -c ckfast -n 'not __ckfast_no_verb' -s h -l help -d 'Show the options'

complete -c ckfast -n '__ckfast_verb convert' -x -l codec -a 'auto raw lz4 zstd bf16' -d Codec
complete -c ckfast -n '__ckfast_verb convert' -x -l level -d 'Level of lz4 or zstd'
complete -c ckfast -n '__ckfast_verb convert' -l smallest -d 'Store the fewest bytes'
complete -c ckfast -n '__ckfast_verb convert' -x -l extent-size -a '4M 8M 16M' -d 'Unit of reading'
complete -c ckfast -n '__ckfast_verb convert' -x -l jobs -d Threads
complete -c ckfast -n '__ckfast_verb convert watch' -x -l nice -d 'Lower the priority'
complete -c ckfast -n '__ckfast_verb convert' -l no-cache -d 'Keep the pack out of the page cache'
complete -c ckfast -n '__ckfast_verb convert' -l amd -d 'Take the memory of AMD GPUs, too'
complete -c ckfast -n '__ckfast_verb convert' -x -l after -a '(__fish_complete_pids)' -d 'Wait for the end of this process'

complete -c ckfast -n '__ckfast_verb convert extract' -l in-place -d 'Replace the directory itself'

complete -c ckfast -n '__ckfast_verb doctor' -x -l pid -a '(__fish_complete_pids)' -d 'A process to be dumped'
complete -c ckfast -n '__ckfast_verb doctor' -l strict -d 'Fail also for what is degraded'

complete -c ckfast -n '__ckfast_verb inspect' -l plan -d 'Show the targets'
complete -c ckfast -n '__ckfast_verb inspect' -l chunks -d 'Show the chunks'

complete -c ckfast -n '__ckfast_verb run' -l env -d 'Print the environment'
complete -c ckfast -n '__ckfast_verb run' -a '(__fish_complete_subcommand --fcs-skip=2)'

complete -c ckfast -n '__ckfast_verb gpud' -x -l slots -d 'Pinned buffers'
complete -c ckfast -n '__ckfast_verb gpud' -x -l device -d 'Make a context on this GPU only'
complete -c ckfast -n '__ckfast_verb gpud' -x -l fd -d 'Serve the client at this descriptor'
complete -c ckfast -n '__ckfast_verb gpud' -x -l group -a '(__fish_complete_groups)' -d 'Serve members of this group'
complete -c ckfast -n '__ckfast_verb gpud' -x -l client-requests -d 'Requests of one user at a time'
complete -c ckfast -n '__ckfast_verb gpud' -x -l client-bytes -d 'GPU memory of one user at a time'
complete -c ckfast -n '__ckfast_verb gpud' -x -l keep -a '(__fish_complete_directories)' -d 'Keep this fast image in memory'
complete -c ckfast -n '__ckfast_verb gpud' -x -l keep-bytes -d 'Memory of kept images'
complete -c ckfast -n '__ckfast_verb gpud' -r -F -l metrics -d 'File or port of metrics for Prometheus'
complete -c ckfast -n '__ckfast_verb gpud' -x -l log -a 'text json' -d 'Form of the log'
complete -c ckfast -n '__ckfast_verb gpud' -l status -d 'Show the state of the running gpud'

complete -c ckfast -n '__ckfast_verb keep drop' -a '(__fish_complete_directories)'
complete -c ckfast -n '__ckfast_verb drop' -l all -d 'All images'

complete -c ckfast -n '__ckfast_verb gpud keep drop park unpark' -r -F -l socket -d 'Socket of gpud'
complete -c ckfast -n '__ckfast_verb park unpark' -x -l dir -a '(__fish_complete_directories)' -d 'Directory of the memory'
complete -c ckfast -n '__ckfast_verb park unpark' -a '(__fish_complete_pids)'
complete -c ckfast -n '__ckfast_verb park' -x -l timeout -d 'Seconds for CUDA calls to end'

complete -c ckfast -n '__ckfast_verb watch' -a '(__fish_complete_directories)'
complete -c ckfast -n '__ckfast_verb watch' -l once -d 'Convert what is there, and end'
complete -c ckfast -n '__ckfast_verb watch' -l recursive -d 'Look in directories below, too'
complete -c ckfast -n '__ckfast_verb watch' -x -l jobs -d 'Conversions at a time'
complete -c ckfast -n '__ckfast_verb watch' -x -l settle -d 'Seconds without changes before'
complete -c ckfast -n '__ckfast_verb watch' -r -F -l metrics -d 'Counters for Prometheus'
complete -c ckfast -n '__ckfast_verb watch' -r -F -l state -d 'What is not to be tried again'
