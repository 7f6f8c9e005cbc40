; Several threads or one: what runs a program finds out which of the two is faster, and again from time to time. How long the threads of a
; machine need to tell each other something, and to hand over what they wrote, can differ by ten times with the cores that the system has put them on,
; and another process may want one of these; so no number of operations says from where on threads pay. Results do not depend on it.
;
; A program has a record: two tables of the functions that it may call (`pool.py`), the first for several threads, the second for one, and what was
; measured. After a period of runs it runs the other way a few times, and goes on that way if these took less than 19 twentieths of the period's time a run;
; then the next period has 64 runs, else 16 times as many as this one, up to 2048, or 256 on one thread: what kept the others busy may have ended. The first two runs of either do not count. After eight that took
; five quarters of the usual time no more are tried. Threads that run the same program at once may spoil each other's times, no more.

%record = type {
  [2 x [3 x ptr]], ptr, i64, i64,          ; 0 the tables, 1 the program's entry, 2 runs of a period, 3 runs the other way
  i64, i64, [2 x i64]                      ; 4 runs since the period began, 5 which table, 6 times of a period and of the other way
}

; `parallel_for` and `move` where one thread does all.
define void @graphc_pool_alone(ptr %pool, ptr %task, ptr %context, i64 %count) {
  %some = icmp sgt i64 %count, 0
  br i1 %some, label %run, label %return
run:
  call void %task(ptr %context, i64 0, i64 %count)
  br label %return
return:
  ret void
}

define void @graphc_pool_move_alone(ptr %pool, ptr %to, ptr %from, i64 %nbytes, i8 %value) {
  %fills = icmp eq ptr %from, null
  br i1 %fills, label %fill, label %copy
fill:
  call void @llvm.memset.p0.i64(ptr %to, i8 %value, i64 %nbytes, i1 false)
  ret void
copy:
  call void @llvm.memcpy.p0.p0.i64(ptr %to, ptr %from, i64 %nbytes, i1 false)
  ret void
}

; Run the program of a record.
define void @graphc_pool_run(ptr %buffers, ptr %record) {
entry:
  %pool.at = getelementptr %record, ptr %record, i32 0, i32 0, i64 0, i64 1
  %program.at = getelementptr %record, ptr %record, i32 0, i32 1
  %period.at = getelementptr %record, ptr %record, i32 0, i32 2
  %trial.at = getelementptr %record, ptr %record, i32 0, i32 3
  %runs.at = getelementptr %record, ptr %record, i32 0, i32 4
  %way.at = getelementptr %record, ptr %record, i32 0, i32 5
  %pool = load ptr, ptr %pool.at
  %program = load ptr, ptr %program.at
  %workers = load atomic i32, ptr %pool monotonic, align 4
  %without = icmp eq i32 %workers, 0
  br i1 %without, label %ask, label %look
ask:
  ; No worker yet: the first table asks for some.
  call void %program(ptr %buffers, ptr %record)
  ret void
look:
  %run = load atomic i64, ptr %runs.at monotonic, align 8
  %way = load atomic i64, ptr %way.at monotonic, align 8
  %period = load atomic i64, ptr %period.at monotonic, align 8
  %trial = load i64, ptr %trial.at
  %is.trial = icmp uge i64 %run, %period
  %other = zext i1 %is.trial to i64
  %taken = xor i64 %way, %other
  %table = getelementptr %record, ptr %record, i32 0, i32 0, i64 %taken
  %begin = call i64 @ticks()
  call void %program(ptr %buffers, ptr %table)
  %end = call i64 @ticks()
  %time = sub i64 %end, %begin
  %since = select i1 %is.trial, i64 %period, i64 0
  %number = sub i64 %run, %since
  %cold = icmp ult i64 %number, 2
  %counted = select i1 %cold, i64 0, i64 %time
  %sum.at = getelementptr %record, ptr %record, i32 0, i32 6, i64 %other
  %sum.before = load atomic i64, ptr %sum.at monotonic, align 8
  %sum = add i64 %sum.before, %counted
  store atomic i64 %sum, ptr %sum.at monotonic, align 8
  %next = add i64 %run, 1
  store atomic i64 %next, ptr %runs.at monotonic, align 8
  %all = add i64 %period, %trial
  %over = icmp uge i64 %next, %all
  %ninth = icmp eq i64 %number, 9
  %early = and i1 %is.trial, %ninth
  %compares = or i1 %over, %early
  br i1 %compares, label %compare, label %return
compare:
  %usual.at = getelementptr %record, ptr %record, i32 0, i32 6, i64 0
  %usual.sum = load atomic i64, ptr %usual.at monotonic, align 8
  %usual.runs = sub i64 %period, 2
  %usual = udiv i64 %usual.sum, %usual.runs
  %counted.runs = sub i64 %number, 1
  %new = udiv i64 %sum, %counted.runs
  %new.quarters = mul i64 %new, 4
  %usual.quarters = mul i64 %usual, 5
  %hopeless = icmp ugt i64 %new.quarters, %usual.quarters
  %ends = or i1 %over, %hopeless
  br i1 %ends, label %decide, label %return
decide:
  %usual.part = mul i64 %usual, 19
  %new.part = mul i64 %new, 20
  %faster = icmp ult i64 %new.part, %usual.part
  %change = zext i1 %faster to i64
  %way.now = xor i64 %way, %change
  %longer = shl i64 %period, 4
  %alone = icmp ne i64 %way, 0
  %bound = select i1 %alone, i64 256, i64 2048
  %longest = call i64 @llvm.umin.i64(i64 %longer, i64 %bound)
  %period.now = select i1 %faster, i64 64, i64 %longest
  store atomic i64 %way.now, ptr %way.at monotonic, align 8
  store atomic i64 %period.now, ptr %period.at monotonic, align 8
  store atomic i64 0, ptr %usual.at monotonic, align 8
  store atomic i64 0, ptr %sum.at monotonic, align 8
  store atomic i64 0, ptr %runs.at monotonic, align 8
  br label %return
return:
  ret void
}

declare i64 @llvm.umin.i64(i64, i64)
