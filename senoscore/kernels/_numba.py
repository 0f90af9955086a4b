"""The one place that knows numba: how kernels are compiled, cached and spread over threads.

Kernels are compiled on first use and kept on disk by numba: in the folder named by
``NUMBA_CACHE_DIR`` if that is set, else beside the source, else (an installation that cannot be
written to, as on most clusters) in the user's own cache folder. Where none of these can be written
the kernel is compiled for this process alone, and a full disk or an unreadable cache file costs a
compilation, never the run.

Three rules for whoever writes a kernel:

* A kernel calls only kernels of its own file: numba's cache notices a change in the file of the
  kernel it compiles, not in the files that kernel calls.
* A kernel does not argsort: numba names that code as it names a sort, and of two kernels loaded from
  the cache one may then run the other's, to a crash. numpy's argsort outside is as fast.
* A kernel writes only to rows it was given, and adds up only integers (or sums within a row in an
  order that does not depend on the storage): then no result depends on blocks or threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any, ParamSpec, TypeVar, cast

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.caching import FunctionCache
from numba.core.runtime.nrt import rtsys
from numba.extending import intrinsic
from numpy.typing import NDArray

P = ParamSpec("P")
R = TypeVar("R")

#: Fewer stored values than this are not worth starting threads for.
MIN_PARALLEL_NNZ = 1 << 16


class _ForgivingCache(FunctionCache):
    """numba's disk cache, where a failure to read or write is a miss instead of an error."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What is kept for these types, None if nothing is.

        numba would first load all that it can compile, half a second of work. That waits until
        something is compiled, when numba does it anyway; kept code needs no more than memory.
        """
        rtsys.initialize(target_context)  # what kernels take memory from
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)  # type: ignore[no-untyped-call]

    @contextmanager
    def _guard_against_spurious_io_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception:  # noqa: BLE001 (reading damaged bytes as code can fail in any way)
            # start over with an empty index, or the same failure would await every later run
            with suppress(Exception):
                self.flush()  # type: ignore[no-untyped-call]


def njit(func: Callable[P, R]) -> Callable[P, R]:
    """Compile `func` without the interpreter: cached on disk, GIL released, sums never reordered.

    Division by zero follows IEEE (inf, NaN) as in numpy. There is no ``fastmath``: it may reorder
    sums and assume that NaN does not exist. Rows are spread over threads by :func:`over_rows`.
    """
    dispatcher: Any = numba.njit(nogil=True, fastmath=False, error_model="numpy")(func)
    # to numba, finding no folder it may write to is an error; the rest is what cache=True does
    with suppress(RuntimeError):
        dispatcher._cache = _ForgivingCache(func)  # type: ignore[no-untyped-call]
    return cast("Callable[P, R]", dispatcher)


def _fetch(typing: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = context.make_array(signature.args[0])(context, builder, args[0])
        place = builder.bitcast(builder.gep(values.data, [args[1]]), cgutils.voidptr_t)
        number = cgutils.int32_t
        kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        # to be read; into the second cache, for the first is full of tables; data, not code
        builder.call(prefetch, [place, number(0), number(2), number(1)])
        return context.get_dummy_value()

    return types.void(array, index), generate


#: ``fetch(array, index)`` in a kernel: have that value's line of memory brought nearer meanwhile. The
#: index may lie outside the array. It changes no result, so that kernels of any file may use it.
fetch = cast("Callable[[NDArray[Any], Any], None]", intrinsic(_fetch))


def over_rows(
    kernel: Callable[..., None], indptr: NDArray[np.int64], *args: Any, threads: int = 1
) -> None:
    """Call ``kernel(start, stop, indptr, *args)`` on consecutive row ranges of similar nnz.

    Parameters
    ----------
    kernel
        A compiled function that writes its rows of the arrays it is given.
    indptr
        CSR row pointers, from 0; rows + 1 long.
    args
        Passed on unchanged.
    threads
        How many ranges are worked on at a time. Results do not depend on it.
    """
    n_rows = len(indptr) - 1
    if threads <= 1 or n_rows < 2 or indptr[-1] < MIN_PARALLEL_NNZ:
        kernel(0, n_rows, indptr, *args)
        return
    # four ranges per thread: a thread that meets deep cells does not hold up the others;
    # rows count as well as values, for empty rows take time too
    cost = indptr + np.arange(n_rows + 1)
    cuts = np.searchsorted(cost, np.linspace(0, cost[-1], 4 * threads + 1)[1:-1])
    edges = np.unique(np.concatenate(([0], cuts, [n_rows])))
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(kernel, int(a), int(b), indptr, *args) for a, b in pairwise(edges)]
        for future in futures:
            future.result()
