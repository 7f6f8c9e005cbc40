; The thread pool of the runtime. One job at a time: `parallel_for` publishes it, takes chunks itself, and waits only for those workers that
; have joined it, so a worker that is asleep, late or gone costs nothing.
;
; state: bit 32 is set while a job is open for joining; the low 32 bits count the workers inside it.
; A worker joins by raising that count while the bit is set; then the job's fields stay as they are until it has left.
; Whoever finds no chunk left clears the bit. busy belongs to the publisher: nested calls and other threads find it set and run inline.
;
; `parked` and `waiting` are raised under the mutex before the last look at `state`, and read after `state` was changed, all in
; sequentially consistent order: either the sleeper sees the change or the waker sees the sleeper.

%pool = type {
  i32, i32, i32, i32, i64, [40 x i8],      ;  0 workers, 1 limit, 2 wanted, 3 stop, 4 spin
  i64, [56 x i8],                          ;  6 state
  i64, [56 x i8],                          ;  8 next
  i32, [60 x i8],                          ; 10 busy
  ptr, ptr, i64, i64, [32 x i8],           ; 12 task, 13 context, 14 count, 15 parts
  i32, i32, [56 x i8],                     ; 17 parked, 18 waiting
  [128 x i8], [128 x i8], [128 x i8]       ; 20 mutex, 21 condition "work", 22 condition "done"
}

declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
declare i32 @pthread_cond_broadcast(ptr)

; The pool's memory is zero and no thread knows it yet.
define void @graphc_pool_init(ptr %pool) {
  %mutex = getelementptr %pool, ptr %pool, i32 0, i32 20
  %work = getelementptr %pool, ptr %pool, i32 0, i32 21
  %done = getelementptr %pool, ptr %pool, i32 0, i32 22
  %1 = call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  %2 = call i32 @pthread_cond_init(ptr %work, ptr null)
  %3 = call i32 @pthread_cond_init(ptr %done, ptr null)
  ret void
}

; Tell all workers to return.
define void @graphc_pool_stop(ptr %pool) {
  %stop = getelementptr %pool, ptr %pool, i32 0, i32 3
  %mutex = getelementptr %pool, ptr %pool, i32 0, i32 20
  %work = getelementptr %pool, ptr %pool, i32 0, i32 21
  %1 = call i32 @pthread_mutex_lock(ptr %mutex)
  store atomic i32 1, ptr %stop seq_cst, align 4
  %2 = call i32 @pthread_cond_broadcast(ptr %work)
  %3 = call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}

; So many pauses, to measure how long one takes.
define void @graphc_pool_pause(i64 %count) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i1, %loop ]
  call void @relax()
  %i1 = add i64 %i, 1
  %more = icmp ult i64 %i1, %count
  br i1 %more, label %loop, label %end
end:
  ret void
}

; Take and run chunks until none is left, then close the job. A chunk is a quarter of a thread's even share of what is left, so that all threads
; end at about the same time, but not less than a sixteenth of its share of all, so that there are not too many.
define internal void @drain(ptr %pool) {
entry:
  %state = getelementptr %pool, ptr %pool, i32 0, i32 6
  %next = getelementptr %pool, ptr %pool, i32 0, i32 8
  %task.at = getelementptr %pool, ptr %pool, i32 0, i32 12
  %context.at = getelementptr %pool, ptr %pool, i32 0, i32 13
  %count.at = getelementptr %pool, ptr %pool, i32 0, i32 14
  %parts.at = getelementptr %pool, ptr %pool, i32 0, i32 15
  %task = load ptr, ptr %task.at
  %context = load ptr, ptr %context.at
  %count = load i64, ptr %count.at
  %parts = load i64, ptr %parts.at
  %shares = shl i64 %parts, 2
  %share = udiv i64 %count, %shares
  %tiny = icmp eq i64 %share, 0
  %least = select i1 %tiny, i64 1, i64 %share
  br label %loop
loop:
  %lo = load atomic i64, ptr %next monotonic, align 8
  %left = sub i64 %count, %lo
  %some = icmp sgt i64 %left, 0
  br i1 %some, label %take, label %end
take:
  %fair = udiv i64 %left, %parts
  %small = icmp ult i64 %fair, %least
  %size = select i1 %small, i64 %least, i64 %fair
  %after = add i64 %lo, %size
  %full = icmp slt i64 %after, %count
  %hi = select i1 %full, i64 %after, i64 %count
  %try = cmpxchg weak ptr %next, i64 %lo, i64 %hi monotonic monotonic
  %mine = extractvalue { i64, i1 } %try, 1
  br i1 %mine, label %run, label %loop
run:
  call void %task(ptr %context, i64 %lo, i64 %hi)
  br label %loop
end:
  %old = atomicrmw and ptr %state, i64 -4294967297 seq_cst
  ret void
}

; task(context, lo, hi) for disjoint ranges that cover [0, count), on several threads; returns when all are done.
define void @graphc_parallel_for(ptr %pool, ptr %task, ptr %context, i64 %count) {
entry:
  %workers.at = getelementptr %pool, ptr %pool, i32 0, i32 0
  %limit.at = getelementptr %pool, ptr %pool, i32 0, i32 1
  %wanted.at = getelementptr %pool, ptr %pool, i32 0, i32 2
  %spin.at = getelementptr %pool, ptr %pool, i32 0, i32 4
  %state = getelementptr %pool, ptr %pool, i32 0, i32 6
  %next = getelementptr %pool, ptr %pool, i32 0, i32 8
  %busy = getelementptr %pool, ptr %pool, i32 0, i32 10
  %task.at = getelementptr %pool, ptr %pool, i32 0, i32 12
  %context.at = getelementptr %pool, ptr %pool, i32 0, i32 13
  %count.at = getelementptr %pool, ptr %pool, i32 0, i32 14
  %parts.at = getelementptr %pool, ptr %pool, i32 0, i32 15
  %parked.at = getelementptr %pool, ptr %pool, i32 0, i32 17
  %waiting = getelementptr %pool, ptr %pool, i32 0, i32 18
  %mutex = getelementptr %pool, ptr %pool, i32 0, i32 20
  %work = getelementptr %pool, ptr %pool, i32 0, i32 21
  %done = getelementptr %pool, ptr %pool, i32 0, i32 22
  %several = icmp sgt i64 %count, 1
  br i1 %several, label %look, label %few
few:
  %one = icmp eq i64 %count, 1
  br i1 %one, label %inline, label %return
look:
  %workers = load atomic i32, ptr %workers.at monotonic, align 4
  %alone = icmp eq i32 %workers, 0
  br i1 %alone, label %asleep, label %claim
asleep:
  ; No worker yet: run inline, and ask for workers if there may be some.
  %limit = load atomic i32, ptr %limit.at monotonic, align 4
  %may = icmp sgt i32 %limit, 0
  br i1 %may, label %ask, label %inline
ask:
  store atomic i32 1, ptr %wanted.at monotonic, align 4
  br label %inline
claim:
  %claimed = cmpxchg ptr %busy, i32 0, i32 1 acquire monotonic
  %mine = extractvalue { i32, i1 } %claimed, 1
  br i1 %mine, label %publish, label %inline
inline:
  call void %task(ptr %context, i64 0, i64 %count)
  br label %return
publish:
  %workers64 = zext i32 %workers to i64
  %threads = add i64 %workers64, 1
  %parts = shl i64 %threads, 2
  store ptr %task, ptr %task.at
  store ptr %context, ptr %context.at
  store i64 %count, ptr %count.at
  store i64 %parts, ptr %parts.at
  store atomic i64 0, ptr %next monotonic, align 8
  store atomic i64 4294967296, ptr %state seq_cst, align 8
  %parked = load atomic i32, ptr %parked.at seq_cst, align 4
  %sleepers = icmp sgt i32 %parked, 0
  br i1 %sleepers, label %wake, label %help
wake:
  ; No more of them than there are chunks for.
  %others = sub i64 %count, 1
  %parked64 = zext i32 %parked to i64
  %fewer = icmp ult i64 %others, %parked64
  %signals = select i1 %fewer, i64 %others, i64 %parked64
  %w1 = call i32 @pthread_mutex_lock(ptr %mutex)
  br label %wake.next
wake.next:
  %sent = phi i64 [ 0, %wake ], [ %sent1, %wake.one ]
  %left = icmp ult i64 %sent, %signals
  br i1 %left, label %wake.one, label %woken
wake.one:
  %w2 = call i32 @pthread_cond_signal(ptr %work)
  %sent1 = add i64 %sent, 1
  br label %wake.next
woken:
  %w3 = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %help
help:
  call void @drain(ptr %pool)
  %spin = load i64, ptr %spin.at
  br label %spinning
spinning:
  %i = phi i64 [ 0, %help ], [ %i1, %spin.more ]
  %now = load atomic i64, ptr %state acquire, align 8
  %left.all = icmp eq i64 %now, 0
  br i1 %left.all, label %release, label %spin.check
spin.check:
  %patient = icmp ult i64 %i, %spin
  br i1 %patient, label %spin.more, label %sleep
spin.more:
  call void @relax()
  %i1 = add i64 %i, 1
  br label %spinning
sleep:
  %s1 = call i32 @pthread_mutex_lock(ptr %mutex)
  store atomic i32 1, ptr %waiting seq_cst, align 4
  br label %sleep.look
sleep.look:
  %later = load atomic i64, ptr %state seq_cst, align 8
  %over = icmp eq i64 %later, 0
  br i1 %over, label %sleep.end, label %sleep.wait
sleep.wait:
  %s2 = call i32 @pthread_cond_wait(ptr %done, ptr %mutex)
  br label %sleep.look
sleep.end:
  store atomic i32 0, ptr %waiting seq_cst, align 4
  %s3 = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %release
release:
  store atomic i32 0, ptr %busy release, align 4
  br label %return
return:
  ret void
}

; The life of a worker: look out for jobs, spinning for a short while and then asleep, until told to stop.
define void @graphc_pool_worker(ptr %pool) {
entry:
  %workers.at = getelementptr %pool, ptr %pool, i32 0, i32 0
  %stop = getelementptr %pool, ptr %pool, i32 0, i32 3
  %spin.at = getelementptr %pool, ptr %pool, i32 0, i32 4
  %state = getelementptr %pool, ptr %pool, i32 0, i32 6
  %parked = getelementptr %pool, ptr %pool, i32 0, i32 17
  %waiting = getelementptr %pool, ptr %pool, i32 0, i32 18
  %mutex = getelementptr %pool, ptr %pool, i32 0, i32 20
  %work = getelementptr %pool, ptr %pool, i32 0, i32 21
  %done = getelementptr %pool, ptr %pool, i32 0, i32 22
  %1 = atomicrmw add ptr %workers.at, i32 1 seq_cst
  %spin = load i64, ptr %spin.at
  br label %idle
idle:
  br label %watch
watch:
  %i = phi i64 [ 0, %idle ], [ %i1, %pause ]
  %stopped = load atomic i32, ptr %stop acquire, align 4
  %go = icmp eq i32 %stopped, 0
  br i1 %go, label %watch.job, label %exit
watch.job:
  %seen = load atomic i64, ptr %state acquire, align 8
  %bit = and i64 %seen, 4294967296
  %open = icmp ne i64 %bit, 0
  br i1 %open, label %join, label %watch.more
watch.more:
  %i1 = add i64 %i, 1
  %patient = icmp ult i64 %i1, %spin
  br i1 %patient, label %pause, label %park
pause:
  call void @relax()
  br label %watch
join:
  %raised = add i64 %seen, 1
  %try = cmpxchg ptr %state, i64 %seen, i64 %raised seq_cst monotonic
  %in = extractvalue { i64, i1 } %try, 1
  br i1 %in, label %joined, label %idle
joined:
  call void @drain(ptr %pool)
  %before = atomicrmw sub ptr %state, i64 1 seq_cst
  %last = icmp eq i64 %before, 1
  br i1 %last, label %tell, label %idle
tell:
  %asleep = load atomic i32, ptr %waiting seq_cst, align 4
  %someone = icmp ne i32 %asleep, 0
  br i1 %someone, label %tell.now, label %idle
tell.now:
  %t1 = call i32 @pthread_mutex_lock(ptr %mutex)
  %t2 = call i32 @pthread_cond_signal(ptr %done)
  %t3 = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %idle
park:
  %p1 = call i32 @pthread_mutex_lock(ptr %mutex)
  %2 = atomicrmw add ptr %parked, i32 1 seq_cst
  br label %park.look
park.look:
  %stopped2 = load atomic i32, ptr %stop seq_cst, align 4
  %go2 = icmp eq i32 %stopped2, 0
  br i1 %go2, label %park.job, label %unpark
park.job:
  %seen2 = load atomic i64, ptr %state seq_cst, align 8
  %bit2 = and i64 %seen2, 4294967296
  %open2 = icmp ne i64 %bit2, 0
  br i1 %open2, label %unpark, label %park.wait
park.wait:
  %p2 = call i32 @pthread_cond_wait(ptr %work, ptr %mutex)
  br label %park.look
unpark:
  %3 = atomicrmw sub ptr %parked, i32 1 seq_cst
  %p3 = call i32 @pthread_mutex_unlock(ptr %mutex)
  br label %idle
exit:
  %4 = atomicrmw sub ptr %workers.at, i32 1 seq_cst
  ret void
}

; Copy nbytes bytes, or fill them where `from` is null. The memory does not overlap. Threads share it from 512 KiB on: below, waking one costs
; more than it brings.
%bytes = type { ptr, ptr, i64, i8 }          ; to, from, nbytes, value

define void @graphc_pool_move(ptr %pool, ptr %to, ptr %from, i64 %nbytes, i8 %value) {
  %bytes = alloca %bytes
  %from.at = getelementptr %bytes, ptr %bytes, i32 0, i32 1
  %nbytes.at = getelementptr %bytes, ptr %bytes, i32 0, i32 2
  %value.at = getelementptr %bytes, ptr %bytes, i32 0, i32 3
  store ptr %to, ptr %bytes
  store ptr %from, ptr %from.at
  store i64 %nbytes, ptr %nbytes.at
  store i8 %value, ptr %value.at
  %over = add i64 %nbytes, 65535
  %count = lshr i64 %over, 16
  %large = icmp uge i64 %nbytes, 524288
  br i1 %large, label %share, label %alone
share:
  call void @graphc_parallel_for(ptr %pool, ptr @move.pieces, ptr %bytes, i64 %count)
  ret void
alone:
  call void @move.pieces(ptr %bytes, i64 0, i64 %count)
  ret void
}

; Pieces of 64 KiB; several in one go, as the machine fills long stretches without reading them.
define internal void @move.pieces(ptr %bytes, i64 %lo, i64 %hi) {
  %from.at = getelementptr %bytes, ptr %bytes, i32 0, i32 1
  %nbytes.at = getelementptr %bytes, ptr %bytes, i32 0, i32 2
  %value.at = getelementptr %bytes, ptr %bytes, i32 0, i32 3
  %to = load ptr, ptr %bytes
  %from = load ptr, ptr %from.at
  %nbytes = load i64, ptr %nbytes.at
  %start = shl i64 %lo, 16
  %after = shl i64 %hi, 16
  %whole = icmp ult i64 %after, %nbytes
  %end = select i1 %whole, i64 %after, i64 %nbytes
  %size = sub i64 %end, %start
  %target = getelementptr i8, ptr %to, i64 %start
  %fills = icmp eq ptr %from, null
  br i1 %fills, label %fill, label %copy
fill:
  %value = load i8, ptr %value.at
  call void @llvm.memset.p0.i64(ptr %target, i8 %value, i64 %size, i1 false)
  ret void
copy:
  %source = getelementptr i8, ptr %from, i64 %start
  call void @llvm.memcpy.p0.p0.i64(ptr %target, ptr %source, i64 %size, i1 false)
  ret void
}

declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
