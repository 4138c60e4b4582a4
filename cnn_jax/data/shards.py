"""Records of ArrayRecord files, by number; of however many files, a bounded number is open."""

import bisect
import contextlib
import resource
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import accumulate
from typing import Any

SHARE = 8  # a set may keep open one of so many files that the process may open
MOST = 65_536  # files that this process asks to be allowed
READING = 64  # threads for the files of one read on gs://


class Shards:
    """Files of records one behind the other; safe to be read from many threads."""

    def __init__(self, files: Sequence[tuple[str, int]], remote: bool):
        """`files` are paths, local or on gs:// (`remote`), with their numbers of records."""
        self._paths = [path for path, _ in files]
        self._ends = list(accumulate(length for _, length in files))
        self._remote = remote
        self._open: OrderedDict[int, Any] = OrderedDict()  # the last used at its end
        self._lock = threading.Lock()

    def read(self, numbers: Sequence[int]) -> list[bytes]:
        """The records of those numbers, in their order; on gs:// those of several files at once.

        Raises:
          RuntimeError: one cannot be read; says why in ArrayRecord's words.
        """
        asked: dict[int, dict[int, int]] = defaultdict(dict)  # by file: place in the answer, record
        for place, number in enumerate(numbers):
            file = bisect.bisect_right(self._ends, number)
            asked[file][place] = number - (self._ends[file - 1] if file else 0)

        def read_file(file: int) -> dict[int, bytes]:
            return dict(zip(asked[file], self._reader(file).read(list(asked[file].values())), strict=True))

        if self._remote and len(asked) > 1:
            with ThreadPoolExecutor(min(len(asked), READING)) as threads:
                found = list(threads.map(read_file, asked))
        else:
            found = map(read_file, asked)
        records = {place: record for part in found for place, record in part.items()}
        return [records[place] for place in range(len(numbers))]

    def _reader(self, file: int) -> Any:
        from array_record.python.array_record_data_source import array_record_module

        with self._lock:
            if file in self._open:
                self._open.move_to_end(file)
                return self._open[file]
        # Without a lock, since it takes a request: two threads may open the same one. No reading ahead: it is random.
        options = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 32_768}
        reader = array_record_module.ArrayRecordReader(self._paths[file], **options)
        with self._lock:
            self._open[file] = reader
            while len(self._open) > max(1, allowed_files() // SHARE):
                self._open.popitem(last=False)  # closed when no thread reads it any more
        return reader


@cache
def allowed_files() -> int:
    """How many files this process may open; asks for more than it was given, once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST if soft == resource.RLIM_INFINITY else soft
