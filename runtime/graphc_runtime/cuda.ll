; Puts the steps of a program on a stream of CUDA. `cuda_native.py` makes the words of %program:
;   0 cuCtxSetCurrent, 1 the context, 2 cuLaunchKernel, 3 cuMemsetD8Async, 4 cuMemcpyDtoDAsync, 5 number of steps, 6 most places of a step,
; then for each step: 0 kind (0 kernel, 1 fill, 2 copy), 1 function, 2 blocks, 3 threads, 4 shared bytes, 5 value, 6 bytes, 7 number of places,
; and for each place the number of a buffer, whose address stands in %pointers, and an offset.
; The result is 0, or the number of the step that failed and, in the low half, the driver's code.

define i64 @graphc_cuda_enqueue(ptr %program, ptr %pointers, ptr %stream) {
entry:
  %context.at = getelementptr i64, ptr %program, i64 1
  %launch.at = getelementptr i64, ptr %program, i64 2
  %fill.at = getelementptr i64, ptr %program, i64 3
  %copy.at = getelementptr i64, ptr %program, i64 4
  %steps.at = getelementptr i64, ptr %program, i64 5
  %most.at = getelementptr i64, ptr %program, i64 6
  %first = getelementptr i64, ptr %program, i64 7
  %set = load ptr, ptr %program
  %context = load ptr, ptr %context.at
  %launch = load ptr, ptr %launch.at
  %fill = load ptr, ptr %fill.at
  %copy = load ptr, ptr %copy.at
  %steps = load i64, ptr %steps.at
  %most = load i64, ptr %most.at
  %words = alloca i64, i64 %most
  %parameters = alloca ptr, i64 %most
  %second = getelementptr i64, ptr %words, i64 1
  %current = call i32 %set(ptr %context)
  %refused = icmp ne i32 %current, 0
  br i1 %refused, label %inactive, label %step

inactive:
  %code = zext i32 %current to i64
  ret i64 %code

step:
  %number = phi i64 [ 0, %entry ], [ %number1, %next ]
  %record = phi ptr [ %first, %entry ], [ %record1, %next ]
  %more = icmp slt i64 %number, %steps
  br i1 %more, label %load, label %done

load:
  %function.at = getelementptr i64, ptr %record, i64 1
  %blocks.at = getelementptr i64, ptr %record, i64 2
  %threads.at = getelementptr i64, ptr %record, i64 3
  %shared.at = getelementptr i64, ptr %record, i64 4
  %value.at = getelementptr i64, ptr %record, i64 5
  %bytes.at = getelementptr i64, ptr %record, i64 6
  %count.at = getelementptr i64, ptr %record, i64 7
  %places = getelementptr i64, ptr %record, i64 8
  %kind = load i64, ptr %record
  %function = load ptr, ptr %function.at
  %blocks = load i32, ptr %blocks.at
  %threads = load i32, ptr %threads.at
  %shared = load i32, ptr %shared.at
  %value = load i8, ptr %value.at
  %bytes = load i64, ptr %bytes.at
  %count = load i64, ptr %count.at
  br label %place

place:
  %i = phi i64 [ 0, %load ], [ %i1, %put ]
  %place.at = phi ptr [ %places, %load ], [ %place1, %put ]
  %left = icmp slt i64 %i, %count
  br i1 %left, label %put, label %go

put:
  %offset.at = getelementptr i64, ptr %place.at, i64 1
  %buffer = load i64, ptr %place.at
  %offset = load i64, ptr %offset.at
  %base.at = getelementptr i64, ptr %pointers, i64 %buffer
  %base = load i64, ptr %base.at
  %address = add i64 %base, %offset
  %word = getelementptr i64, ptr %words, i64 %i
  %parameter = getelementptr ptr, ptr %parameters, i64 %i
  store i64 %address, ptr %word
  store ptr %word, ptr %parameter
  %place1 = getelementptr i64, ptr %place.at, i64 2
  %i1 = add i64 %i, 1
  br label %place

go:
  switch i64 %kind, label %kernel [ i64 1, label %filling
                                    i64 2, label %copying ]

kernel:
  %launched = call i32 %launch(ptr %function, i32 %blocks, i32 1, i32 1, i32 %threads, i32 1, i32 1, i32 %shared, ptr %stream, ptr %parameters, ptr null)
  br label %next

filling:
  %filled.at = load i64, ptr %words
  %filled = call i32 %fill(i64 %filled.at, i8 zeroext %value, i64 %bytes, ptr %stream)
  br label %next

copying:
  %to = load i64, ptr %words
  %from = load i64, ptr %second
  %same = icmp eq i64 %to, %from
  br i1 %same, label %next, label %move

move:
  %moved = call i32 %copy(i64 %to, i64 %from, i64 %bytes, ptr %stream)
  br label %next

next:
  %result = phi i32 [ %launched, %kernel ], [ %filled, %filling ], [ 0, %copying ], [ %moved, %move ]
  %record1 = phi ptr [ %place.at, %kernel ], [ %place.at, %filling ], [ %place.at, %copying ], [ %place.at, %move ]
  %number1 = add i64 %number, 1
  %bad = icmp ne i32 %result, 0
  br i1 %bad, label %failed, label %step

failed:
  %low = zext i32 %result to i64
  %high = shl i64 %number, 32
  %both = or i64 %high, %low
  ret i64 %both

done:
  ret i64 0
}
